"""Whether a split has the rows that a metric needs, and how to measure on more of them."""

from loraft.config.schema import Config
from loraft.data.dataset import LIMITS, SET_ASIDE, Split
from loraft.errors import ConfigError
from loraft.evaluation.choosing import Metric


def more_rows(config: Config, rows: Split) -> str:
    """How to measure on more rows: by a limit that left some out, by another draw, or by a larger split."""
    data = config.data
    folds = data.fold is not None and rows.name in LIMITS  # then every split is a part of train
    name = "train" if folds else "validation" if rows.name == "calibration" else rows.name
    limit, shares = LIMITS.get(name), dict(zip(LIMITS, data.split or (), strict=bool(data.split)))
    value = None if limit is None else getattr(data, limit)
    aside = rows.notes.get(SET_ASIDE, 0)  # counted by the limit, too
    if value is not None and (folds or rows.name == "calibration" or len(rows) + aside >= value):
        return f"raise data.{limit} (now {value})"
    if shares.get(name) and name != "train":
        return f"a larger share in data.split (now {data.split}), or train --folds 5, helps"
    return f"more rows in {key_of(name)} help"


def key_of(split: str) -> str:
    """The key of the config that names a split; of another split its name."""
    return f"data.{split}_split" if split in LIMITS else split


def refuse_unmeasured(config: Config, rows: Split) -> None:
    """Refuses rows that are to choose by `train.metric` but cannot measure it.

    Raises:
        ConfigError: the metric is the F1 of a label that no row has.
    """
    if config.prompt.kind != "multilabel" and not Metric.of(config).measured_on(rows.labels):
        raise ConfigError(
            f"train.metric: no {rows.name} row has the label that it chooses by (got {config.train.metric},"
            f" {len(rows):,} rows); {more_rows(config, rows)}, or choose another metric, such as macro_f1"
        )
