"""Runs the trials of a sweep on the workers of a Ray cluster: see `ray_pool` for the workers, `ray_worker` for one.

The driver, which started the command, deals out units of trials and holds the locks of the run directories that its
workers write to.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from loraft.config.study_sections import SweepConfig
from loraft.ray_cluster import connected, in_words, machines
from loraft.runs.environment import package_versions
from loraft.runs.lock import LOCK_FILE
from loraft.runs.study_folders import SweepFolder
from loraft.studies.sweep.joint_pass import begun_passes
from loraft.studies.sweep.ray_pool import WHAT, Pool, places
from loraft.studies.sweep.ray_worker import Job
from loraft.studies.sweep.shared_backbone import SharedBackbone, Tell
from loraft.studies.sweep.trials import Trial
from loraft.studies.sweep.units import units


@contextmanager
def on_cluster(section: SweepConfig, tell: Tell) -> Iterator[dict[str, float]]:
    """Connects to the cluster for the block; gives what a worker needs: CPU and GPU.

    Raises:
        LoraftError: there is no cluster, or no machine of it can hold a worker.
    """
    with connected(section.address, WHAT, tell):
        import ray

        gpus = section.gpus
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        needed = {"CPU": section.cpus, "GPU": gpus}
        places(needed)
        yield needed


def run_on_ray(
    waiting: Sequence[Trial],
    folder: SweepFolder,
    shared: SharedBackbone,
    joint: str,
    needed: Mapping[str, float],
    *,
    force: bool,
) -> dict[str, str]:
    """Runs the trials on the connected cluster; returns the error messages of those that failed, by name.

    Args:
        waiting: the trials, which are no finished runs.
        folder: of the sweep, whose lock this process holds.
        shared: the data; its `tell` gets the lines of all workers.
        joint: `sweep.joint`.
        needed: by a worker, from `on_cluster`.
        force: begin each trial anew.

    Raises:
        LoraftError: no worker starts, the machines that could hold one are gone, or the cluster fails.
    """
    job = Job(
        folder=folder.path,
        directory=os.getcwd(),
        lock=(folder.path / LOCK_FILE).read_bytes(),
        joint=joint,
        force=force,
        portion=needed["GPU"] or min(1.0, needed["CPU"] / max(1.0, *(node.get("CPU", 0.0) for node in machines()))),
        version=package_versions(["loraft"])["loraft"],
        command=tuple(sys.argv),
    )
    most = places(needed)
    begun = [] if force else begun_passes(folder, waiting)
    dealt = units(waiting, joint, workers=most, begun=begun)
    count = min(most, len(dealt))
    shared.tell(f"{count} {'worker' if count == 1 else 'workers'}, {in_words(needed)} each")
    return Pool(job, folder, shared, needed).run(dealt)
