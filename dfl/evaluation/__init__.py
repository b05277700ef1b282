"""Score tables, and the metrics that are computed from them alone."""

from dfl.evaluation.bootstrap import group_weights, percentile_interval
from dfl.evaluation.metrics import (
    METRICS,
    TABLE_METRICS,
    Metric,
    binary_metrics,
    roc_points,
    weighted_metrics,
)
from dfl.evaluation.operating_point import (
    best_threshold,
    calibrated,
    platt_scaling,
    threshold_at_fpr,
)
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
    image_sets,
    known_rows,
    metric_table,
    most_wrong,
    unique_images,
)

__all__ = [
    "METRICS",
    "METRIC_TABLE_COLUMNS",
    "SCORE_COLUMNS",
    "TABLE_METRICS",
    "Metric",
    "PairedDifference",
    "best_threshold",
    "binary_metrics",
    "calibrated",
    "group_weights",
    "image_sets",
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
    "threshold_at_fpr",
    "unique_images",
    "validate_scores",
    "weighted_metrics",
    "write_scores",
]
