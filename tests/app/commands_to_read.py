"""A small command and classes, whose source the tests of signatures and helps read."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from dfl.data import Crop

Mode = Literal["day", "night"]


class Optics(ABC):
    """What light goes through."""

    @abstractmethod
    def bend(self) -> None:
        """Bend it."""


class Lens(Optics):
    """A lens.

    Args:
        zoom: How near.
    """

    def __init__(self, zoom: float = 1.0, *, coated: bool = True) -> None: ...


class LongLens(Lens):
    """A lens that is heavy."""


@dataclass
class Body:
    """A body.

    Args:
        lens: Its lens.
        weight_g: Its weight.
        strap: Its strap, or a lens to hang around one's neck.
    """

    lens: Lens
    weight_g: int = 400
    strap: str | Lens = "leather"


def look(
    body: Body,
    out: Path,
    crop: "Crop | None" = None,
    bodies: dict[str, Body] | None = None,
    *,
    times: int = 1,
    mode: Mode = "day",
    folder: bool = False,
    sharp: bool = True,
) -> list[object]:
    """Look at something.

    Longer words.

    Example:
        look --body x \\
            --out y

    Args:
        body: Through what.
        out: Where the result goes.
        crop: What is
            looked at.
        bodies: Others.
        times: How often.
        mode: When.
        folder: Make a folder.
        sharp: Stay sharp; --no_sharp leaves it out.

    Returns:
        Nothing of use.
    """
    return [body, out, crop, bodies, times, mode, folder, sharp]
