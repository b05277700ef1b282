"""Statements about the levels of an axis, which a study puts to the test."""

from dataclasses import dataclass, field
from typing import Literal


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
