"""Score tables, and the metrics that are computed from them alone."""

from dfl.evaluation.bootstrap import Interval, group_weights, percentile_interval
from dfl.evaluation.curves import roc_points
from dfl.evaluation.metrics import METRICS, binary_metrics, dense_ranks
from dfl.evaluation.operating_point import best_threshold, calibrated, platt_scaling
from dfl.evaluation.paired import PairedDifference, mcnemar, paired_difference
from dfl.evaluation.scores import (
    SCORE_COLUMNS,
    probability,
    read_scores,
    validate_scores,
    write_scores,
)
from dfl.evaluation.tables import (
    METRIC_TABLE_COLUMNS,
    generator_rows,
    known_rows,
    metric_table,
    most_wrong,
    unique_images,
)
from dfl.evaluation.weighted import LOWER_IS_BETTER, STUDY_METRICS, weighted_metrics

__all__ = [
    "LOWER_IS_BETTER",
    "METRICS",
    "METRIC_TABLE_COLUMNS",
    "SCORE_COLUMNS",
    "STUDY_METRICS",
    "Interval",
    "PairedDifference",
    "best_threshold",
    "binary_metrics",
    "calibrated",
    "dense_ranks",
    "generator_rows",
    "group_weights",
    "known_rows",
    "mcnemar",
    "metric_table",
    "most_wrong",
    "paired_difference",
    "percentile_interval",
    "platt_scaling",
    "probability",
    "read_scores",
    "roc_points",
    "unique_images",
    "validate_scores",
    "weighted_metrics",
    "write_scores",
]
