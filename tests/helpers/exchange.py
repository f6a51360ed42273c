"""What the processes of a launcher say to each other, without a model: `torchrun ... -m helpers.exchange`.

Rank 0 writes what it found to FOLDER. Then rank 1 ends as HOW says, `kill` or `raise`, while the others wait for it,
or rank 0 is interrupted (`interrupt`).
"""

import atexit
import json
import os
import signal
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch.distributed as dist

from loraft import distributed
from loraft.cli.app import main
from loraft.config.resolve import resolve
from loraft.errors import DataError
from loraft.runs.run import run_of
from loraft.training.processes import together


def doubled(rows: list[int]) -> np.ndarray:
    share.append(len(rows))
    return np.array(rows, float) * 2


share: list[int] = []


def end_slowly() -> None:
    """As Python's end on a busy machine: the connections are closed, and the process still runs."""
    distributed.part()
    dist.destroy_process_group()
    time.sleep(4)


def work(*_: object, **__: object) -> None:
    how, folder = os.environ["HOW"], Path(os.environ["FOLDER"])
    run = run_of(resolve(overrides=[f"output={folder}", "name=lượt"]))
    with together(run, on_cpu=True):
        found = [list(distributed.shared_out(rows, doubled)) for rows in ([], [7], [5, 6, 7, 8, 9])]
        of_main = distributed.from_main(f"rank {distributed.rank()}")
        told = [found, of_main, distributed.sums(1, distributed.rank()), distributed.largest(distributed.rank())]
        shares = distributed.shared_out([*range(distributed.processes())], lambda rows: [share for _ in rows])
        if distributed.is_main_process():
            (folder / "found.json").write_text(json.dumps([*told, [*shares]]), encoding="utf-8")
        if distributed.rank() == 1 and how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if distributed.rank() == 1 and how == "raise":
            atexit.register(end_slowly)
            raise DataError("dòng 7: không đọc được")
        if distributed.is_main_process() and how == "interrupt":
            raise KeyboardInterrupt(signal.SIGINT)
        distributed.from_main(None)


if __name__ == "__main__":
    with patch.object(distributed, "GRACE", 1.0), patch("loraft.training.pipeline.train", work):
        main(["train", "--set", f"output={os.environ['FOLDER']}", "--set", "name=lượt"])
