"""Settings of a study that are not its axes."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dfl.errors import ConfigError
from dfl.evaluation import METRICS

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


@dataclass
class Claim:
    """A statement about the levels of an axis, which a study tests.

    Args:
        statement: What is claimed, in a sentence.
        axis: The axis that it is about.
        better: The levels that are claimed to be better, each of them than each of the others.
        others: What they are compared with; all other levels by default.
        scope: Whether it is tested on the datasets trained on, on the others, or on all.
    """

    statement: str
    axis: Literal["features", "reduction", "head", "condition"]
    better: list[str]
    others: list[str] = field(default_factory=list)
    scope: Literal["seen", "unseen", "macro"] = "seen"


@dataclass(frozen=True)
class Settings:
    """Where a study goes and what it is judged by.

    Attributes:
        out: Its folder.
        title: Title of the report.
        metric: The primary metric, a name of ``METRICS`` that has intervals.
        replicates: Bootstrap replicates behind each interval.
        claims: Statements that are put to the test.
        config: The resolved config as YAML.

    Raises:
        ConfigError: If a number is out of range, a metric is unknown, or a claim claims nothing.
    """

    out: Path
    title: str
    metric: str
    replicates: int
    claims: list[Claim]
    config: str

    def __post_init__(self) -> None:
        metrics = [name for name, metric in METRICS.items() if metric.has_interval]
        if self.metric not in metrics:
            raise ConfigError(f"metric: no {self.metric!r}; choose {', '.join(metrics)}")
        if self.replicates < 100:
            raise ConfigError(
                f"replicates: at least 100 for an interval of 95 %, got {self.replicates}"
            )
        for claim in self.claims:
            if not claim.better or set(claim.better) & set(claim.others):
                raise ConfigError(
                    f"claims: {claim.statement!r} says that {claim.better} is better than "
                    f"{claim.others or 'the others'}; name levels of {claim.axis}, each once"
                )

    @property
    def page(self) -> Path:
        """The report."""
        return self.out / "report.html"


def check_names(*, may_be_empty: bool = False, **axes: Iterable[str]) -> None:
    """Refuse names that cannot stand in a file's name or in the name of a part.

    Raises:
        ConfigError: If there is one, or an axis is empty.
    """
    for axis, names in axes.items():
        names = list(names)
        if not names and not may_be_empty:
            raise ConfigError(f"{axis}: empty; name at least one")
        for name in names:
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{axis}: {name!r} cannot be a name; use letters, digits, _ and -"
                )
