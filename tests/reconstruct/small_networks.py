"""Reconstructors whose passes cost nothing."""

from torch import Tensor
from torch.nn import functional

from dfl.reconstruct import Reconstructor


class Blocky(Reconstructor):
    """Paint blocks of as many pixels in their mean colour."""

    def __init__(self, side: int = 4, family: str | None = None) -> None:
        super().__init__(family)
        self.side = side

    @property
    def stride(self) -> int:
        return self.side

    def settings(self) -> dict[str, int]:
        return {"side": self.side}

    def draw(self, image: Tensor) -> Tensor:
        means = functional.avg_pool2d(image, self.side)
        return means.repeat_interleave(self.side, -1).repeat_interleave(self.side, -2)
