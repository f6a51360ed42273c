"""`validation_scores.json`: what an adapter scored on its validation rows. It holds no sentences.

With it, `predict` needs neither data nor model to know how often the adapter errs at which confidence.

Letters: N rows, K labels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from loraft.errors import RunError
from loraft.runs.from_hub import ADAPTER_FILES
from loraft.runs.hashes import differing
from loraft.runs.records import read_object, read_record, write_record
from loraft.runs.run import MANIFEST_FILE

VALIDATION_FILE = ADAPTER_FILES[-1]  # beside the adapter
# Why a folder has none, for messages.
MISSING = f"no {VALIDATION_FILE}, as of cut adapters, merged weights and earlier versions"
AGAIN = "copy the adapter's folder again, or train again"


@dataclass(frozen=True)
class ValidationScores:
    """The scores of N validation rows.

    Attributes:
        labels: names of the K labels, in id order.
        rows: numbers of the rows in their file.
        references: label ids.
        log_probs: of each row the labels' scores before calibration, in nats.
        set_aside: of each row, whether it chose neither checkpoint nor calibration.
    """

    labels: tuple[str, ...]
    rows: tuple[int, ...]
    references: tuple[int, ...]
    log_probs: tuple[tuple[float, ...], ...]
    set_aside: tuple[bool, ...]

    def arrays(self, *, set_aside: bool | None = None) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The scores before calibration, in nats, (N, K), and the label ids (N,).

        Args:
            set_aside: of the rows that were set aside, or of the others; None: of all.
        """
        log_probs_NK = np.array(self.log_probs, dtype=np.float64).reshape(-1, len(self.labels))
        kept_N = np.array([set_aside is None or aside == set_aside for aside in self.set_aside], dtype=bool)
        return log_probs_NK[kept_N], np.array(self.references, dtype=np.int64)[kept_N]


def write(folder: Path, scores: ValidationScores) -> None:
    """Writes the file into an adapter's folder."""
    write_record(folder / VALIDATION_FILE, scores)


def read(folder: Path) -> ValidationScores | None:
    """Returns what the file in an adapter's folder holds; None without it: an earlier version, or several labels a row.

    Raises:
        RunError: it is damaged, or not the file that the folder's `loraft.json` names.
    """
    path, bundle = folder / VALIDATION_FILE, folder / MANIFEST_FILE
    files = read_object(bundle, AGAIN).get("files") if bundle.exists() else None
    if isinstance(files, dict) and (path.exists() or VALIDATION_FILE in files):
        for state in differing(folder, {VALIDATION_FILE: files.get(VALIDATION_FILE, "")}).values():
            raise RunError(f"{path}: is not the file that {MANIFEST_FILE} names (got {state}); {AGAIN}")
    if not path.exists():
        return None
    found = read_record(path, ValidationScores, AGAIN)
    lengths = {len(found.rows), len(found.references), len(found.log_probs), len(found.set_aside)}
    wide = any(len(row) != len(found.labels) for row in found.log_probs)
    known = all(0 <= k < len(found.labels) for k in found.references)
    if len(lengths) > 1 or wide or not known:
        raise RunError(f"{path}: its rows do not belong together (got {sorted(lengths)} rows); {AGAIN}")
    return found
