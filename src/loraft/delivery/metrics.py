"""Counts of the server in Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats)."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """How many values were at most each of some bounds, with their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.sum = tuple(bounds), [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        """Counts a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str) -> list[str]:
        """The samples of the histogram."""
        found, count = [], 0
        for bound, more in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            count += more
            found.append(f'{name}_bucket{{le="{bound}"}} {count}')
        return [*found, f"{name}_sum {self.sum:.9g}", f"{name}_count {count}"]


class Metrics:
    """What the server counts: requests, rows, sizes of batches, seconds of classifying requests."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()  # by path and status
        self.rows: Counter[str] = Counter()  # answered, by run
        self.batch_rows = Histogram((1, 2, 4, 8, 16, 32, 64, 128, 256))
        self.seconds = Histogram((0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5))

    def text(self, waiting: int) -> str:
        """All samples, with the number of rows that wait."""
        requests = [
            f'loraft_requests_total{{path="{p}",code="{c}"}} {n}' for (p, c), n in sorted(self.requests.items())
        ]
        rows = [f'loraft_rows_total{{model="{_escaped(name)}"}} {n}' for name, n in sorted(self.rows.items())]
        families = (
            ("loraft_requests_total", "counter", "Answered requests.", requests),
            ("loraft_rows_total", "counter", "Classified texts.", rows),
            ("loraft_batch_rows", "histogram", "Rows computed together.", self.batch_rows.lines("loraft_batch_rows")),
            ("loraft_request_seconds", "histogram", "From the head of a classifying request to its answer.",
             self.seconds.lines("loraft_request_seconds")),
            ("loraft_queue_rows", "gauge", "Rows that wait.", [f"loraft_queue_rows {waiting}"]),
        )  # fmt: skip
        return "".join(
            f"# HELP {name} {words}\n# TYPE {name} {kind}\n" + "".join(line + "\n" for line in lines)
            for name, kind, words, lines in families
        )


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
