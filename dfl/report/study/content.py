"""What a finished study says, in tables: the page, the terminal and W&B all show this."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

UNMATCHED: Final = "subjects or pipeline may give the class away"
"""What stands beside a number of images whose classes differ in more than in who made them."""


@dataclass(frozen=True)
class HardImage:
    """An image that the chosen detector judges wrong, or barely right.

    Attributes:
        caption: A line below it, such as its path.
        label: What it is: "real" or "fake".
        verdict: What the detector says.
        score: The margin; higher = fake, threshold 0.
        dataset: The dataset it is from.
        generator: Who made it; "real" for reals.
        jpeg: The thumbnail's bytes, JPEG.
    """

    caption: str
    label: str
    verdict: str
    score: float
    dataset: str
    generator: str
    jpeg: bytes


@dataclass(frozen=True)
class StudyPage:
    """Everything a report of a study shows; values in [0, 1], ``low`` and ``high`` bound 95 %.

    A table without rows leaves its section out; nan says that a number cannot be computed.

    Attributes:
        title: The study's name.
        subtitle: One sentence on what it asks.
        metric: The primary metric, a key of ``METRICS``.
        train_set: The training set of the detector to take home: "combined" or a dataset.
        created: Date of the study, ISO 8601.
        facts: Label and value: images, cells, forward passes made and saved, times, versions.
        choices: The best configuration by each criterion, chosen on validation: criterion,
            features, reduction, head, train_set, train_condition, val, test, low, high, why.
        unseen: Configurations where generators and photographs are both new, best on validation
            first: features, reduction, head, train_condition; value, low, high, the mean over the
            matched datasets; worst_set and worst, the least of them; fpr, the false positive rate
            on the worst new source of photographs, fpr_source, at the threshold of validation, and
            tpr, the mean true positive rate there; family, the mean over new families of
            generators whose sets are not matched; val; and ``chosen``, which marks the first of
            the choices.
        leaders: Configurations trained on ``train_set``, best first: features, reduction,
            head, kind ("fine-tuned", or a grid of frozen features), value, low, high, val.
        models: Configurations trained on ``train_set``, tested on all datasets (mean), of the
            reduction that validation chose: features, head, value, low, high, and ``chosen``,
            which marks the head that validation chose for these features.
        matrices: By name, a long table of train_set, test_set, value, low, high; the last test
            sets may be "pooled", "macro" and "worst".
        effects: Marginal mean of each level of each axis: axis, level, value, low, high, n_cells,
            and the paired difference to the best level of the axis, nan for that level itself:
            difference, diff_low, diff_high. An axis says what it is tested on, such as "features,
            on all datasets".
        claims: statement, verdict ("held", "did not hold", "undecided" or "not tested"),
            evidence, difference, low, high.
        comparisons: Paired tests: a, b, test_set, difference, low, high, and the paired bootstrap
            of the primary metric: p, p_holm (corrected for the number of rows by Holm); mcnemar_p
            is McNemar's exact test, by group, on the pooled decisions of the first seed.
        metrics: All numbers of the chosen configurations: configuration, test_set, n_real,
            n_fake, and each of ``METRICS`` with its ``_low`` and ``_high``.
        roc: By label, false and true positive rates, each (K,), rising.
        hardest: Images that the chosen configuration gets wrong, worst first; some two dozen.
        failures: Cells that failed: cell, cause.
        notes: Caveats, one sentence each.
        commands: How to make the study again, one command a line.
        config: The resolved YAML.
    """

    title: str
    subtitle: str
    metric: str
    train_set: str
    created: str
    facts: list[tuple[str, str]]
    choices: pd.DataFrame
    unseen: pd.DataFrame
    leaders: pd.DataFrame
    models: pd.DataFrame
    matrices: dict[str, pd.DataFrame]
    effects: pd.DataFrame
    claims: pd.DataFrame
    comparisons: pd.DataFrame
    metrics: pd.DataFrame
    roc: dict[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]
    hardest: list[HardImage]
    failures: pd.DataFrame
    notes: list[str]
    commands: list[str]
    config: str
