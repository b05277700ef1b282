"""The errors a user can cause: one line with the value, what is allowed and what to do next."""

from collections.abc import Sequence
from typing import Final

MOST_NAMED: Final = 10


def one_line(err: BaseException | str, most: int | None = None) -> str:
    """Say an error in one line, to stand inside another message.

    Args:
        err: What was raised, or its text.
        most: How many characters to keep; all by default.

    Returns:
        Its words; the name of its class where it has none.
    """
    return " ".join(str(err).split())[:most] or type(err).__name__


def named(items: Sequence[str], count: int | None = None, *, separator: str = ", ") -> str:
    """Name the first ten of what is wrong, and count the others.

    Args:
        items: What to call each; those after the tenth need not be there.
        count: How many there are; as many as there are items by default.
        separator: What stands between two.
    """
    shown = items[:MOST_NAMED]
    more = (len(items) if count is None else count) - len(shown)
    return separator.join(shown) + (f" and {more} more" if more else "")


class DflError(Exception):
    """Base of every error that the command line prints as one line with exit code 2.

    It is one line even when a loader's worker met it: such a worker hands an error on by calling
    its class again with the whole traceback as text, and only the message at its end is kept.

    Attributes:
        message: The line. The class has one too: torch then raises the error without holding on to
            it, which would keep the loader in a reference cycle and its workers waiting for
            seconds.
    """

    message: str = "failed"

    def __init__(self, message: str) -> None:
        mark = f"{type(self).__module__}.{type(self).__qualname__}: "
        self.message = message.rpartition(mark)[2].strip()
        super().__init__(self.message)

    def reword(self, message: str) -> None:
        """Say something else: what was found out since it was raised.

        Args:
            message: The line.
        """
        self.message, self.args = message, (message,)


class ConfigError(DflError):
    """A setting that cannot be carried out."""


class DataError(DflError):
    """A folder, a layout or a pair of image sets that cannot be used."""


class ManifestError(DataError):
    """A manifest that breaks its own rules."""


class ImageError(DataError):
    """An image that cannot be decoded."""


class BackboneError(DflError):
    """A backbone that does not exist, or weights that do not fit it."""


class FeatureError(DflError):
    """A feature folder that is missing, damaged, or made by something else."""


class HeadError(DflError):
    """A head that cannot be fitted, stored or read."""


class CheckpointError(DflError):
    """A checkpoint that does not fit the model it is loaded into."""


class ScoreError(DflError):
    """A score table that breaks its own rules."""


class StudyError(DflError):
    """A study that cannot go on."""
