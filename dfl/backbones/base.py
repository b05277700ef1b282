"""The frozen backbone: 8-bit images in, named float32 vectors out; a hash of what made them."""

import hashlib
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from dfl.backbones.pixels import RESIZE, check_pixels, normalised
from dfl.backbones.precision import exact_float32, suit_frozen
from dfl.backbones.weights import state_digest
from dfl.errors import BackboneError
from dfl.types import FeatureLayer, FeatureSpec

logger = logging.getLogger(__name__)


class Backbone(nn.Module, ABC):
    """A frozen image model that turns 8-bit images into vectors.

    Frozen means: no gradients, eval mode whatever ``train()`` asks for, parameters that want no
    gradient. Whoever tunes some of them afterwards (``dfl.heads.TuneTask``) asks for the gradients
    of those alone, and gets them. Resize and normalisation are part of it, on the images' device:
    an image whose sides are not ``input_size`` is resized to that square (bicubic with
    antialiasing, in float32, not rounded back to 8 bit; a non-square image is squeezed, so crop
    before if that is not wanted), one of that size is left as it is. The convolution that sees the
    pixels multiplies in float32 whatever autocast is on, and float32 is not rounded to TF32.

    A subclass builds its network, hands it over, and says in ``encode`` how it makes the layers.

    Args:
        network: The model; it becomes frozen.
        layers: The names of the features that ``forward`` gives, in that order.
        architecture: What the network is, the weights apart; part of the fingerprint.
        input_size: Side of the square input, in pixels.
        mean: Subtracted from RGB in [0, 1].
        std: RGB is divided by it afterwards.

    Attributes:
        cast_to: The precision that the network was cast to for good, None for that it was built in.
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        network: nn.Module,
        layers: Sequence[str],
        *,
        architecture: str,
        input_size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        suit_frozen(network)
        self.network = network
        self.layers = tuple(layers)
        self.architecture = architecture
        self.input_size = input_size
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        self.register_buffer("_mean", _column(self.mean), persistent=False)
        self.register_buffer("_std", _column(self.std), persistent=False)
        self.cast_to: str | None = None
        self._dims: dict[str, int] | None = None
        self._digest: str | None = None
        self._encode: Callable[[Tensor], dict[str, Tensor]] | None = None
        self._has_warned = False
        self.register_load_state_dict_post_hook(_forget_digest)  # type: ignore[no-untyped-call]
        self.requires_grad_(False)
        self.train(False)

    @abstractmethod
    def encode(self, image: Tensor) -> dict[str, Tensor]:
        """Run the network once.

        Args:
            image: Normalised, shape ``(B, 3, input_size, input_size)``, in the network's dtype.

        Returns:
            A vector ``(B, D)`` for every name in ``layers``, any float dtype, any order.
        """

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Turn images into vectors.

        Args:
            image: uint8 RGB, shape ``(B, 3, H, W)``, or ``(B, V, 3, H, W)`` for V crops of each
                image.

        Returns:
            By layer, in the order asked for: ``(B, D)``, float32; the mean over an image's crops.
            Without gradient, unless one of the network's parameters wants one.

        Raises:
            BackboneError: If the images have another dtype or shape.
        """
        check_pixels(image)
        self._warn_of_small(image)
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        with torch.set_grad_enabled(learns), exact_float32(image.device):
            encode = self._encode or self.encode
            encoded = encode(self._preprocess(image.reshape(-1, *image.shape[-3:])))
            features = {name: encoded[name].float() for name in self.layers}
            if image.ndim == 5:
                crops = image.shape[:2]  # (B, V)
                return {n: x.reshape(*crops, -1).mean(dim=1) for n, x in features.items()}
            return features

    def run_with(self, encode: Callable[[Tensor], dict[str, Tensor]] | None) -> None:
        """Run the network by something that stands in for ``encode``, such as a compiled one.

        Args:
            encode: Gives what ``encode`` gives, to rounding; None runs that again.
        """
        self._encode = encode

    @property
    def dims(self) -> dict[str, int]:
        """How many values each layer has, in the order asked for; found once with a black image."""
        if self._dims is None:
            size = (1, 3, self.input_size, self.input_size)
            black = torch.zeros(size, dtype=torch.uint8, device=self._mean.device)
            self._dims = {name: value.shape[1] for name, value in self.forward(black).items()}
        return dict(self._dims)

    def spec(self, name: str) -> FeatureSpec:
        """Describe the vectors.

        Args:
            name: What the backbone is called where it is used; layers are ``<name>.<layer>``.

        Returns:
            One entry for each layer, in the order asked for.
        """
        return tuple(
            FeatureLayer(f"{name}.{layer}", dim, self.fingerprint(layer))
            for layer, dim in self.dims.items()
        )

    def fingerprint(self, layer: str) -> str:
        """Hash all that determines a layer's values.

        That is the architecture, the preprocessing, the network's tensors (names, dtypes, shapes,
        bytes) and the layer's name; not the device, not the other layers asked for. The tensors are
        hashed on the first call, and again only after weights are loaded or cast.

        Args:
            layer: One of ``layers``.

        Returns:
            SHA-256, hexadecimal.

        Raises:
            BackboneError: If the layer was not asked for.
        """
        if layer not in self.layers:
            raise BackboneError(
                f"layer {layer!r} was not asked for; this backbone gives {', '.join(self.layers)}"
            )
        return self._fingerprint(layer)

    def _fingerprint(self, layer: str) -> str:
        """Hash what determines a layer's values, whether or not it was asked for."""
        if self._digest is None:
            self._digest = state_digest(self.network.state_dict())
        looks = [self.input_size, self.mean, self.std, RESIZE]
        recipe = json.dumps([self.architecture, looks, self._digest, layer])
        return hashlib.sha256(recipe.encode()).hexdigest()

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever is asked for: no dropout, BatchNorm statistics fixed."""
        return super().train(False)

    def _warn_of_small(self, image: Tensor) -> None:
        side = min(image.shape[-2:])
        if side < self.input_size and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%s takes images of %d px and gets squares of %d px, which are enlarged: make the "
                "crop %d px, or set a smaller input_size",
                self.architecture,
                self.input_size,
                side,
                self.input_size,
            )

    def _preprocess(self, image: Tensor) -> Tensor:
        """Resize, scale and normalise uint8 ``(N, 3, H, W)``."""
        weight = next((p for p in self.network.parameters() if p.is_floating_point()), self._mean)
        return normalised(image, self.input_size, self._mean, self._std).to(weight.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow a move or cast; keep normalising in float32 and hash cast weights anew."""
        before = [tensor.dtype for tensor in self.network.state_dict().values()]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if [tensor.dtype for tensor in self.network.state_dict().values()] != before:
            self._digest = None
        self._mean = _column(self.mean, self._mean.device)
        self._std = _column(self.std, self._std.device)
        return self


def _column(values: Sequence[float], device: torch.device | None = None) -> Tensor:
    """Make a ``(3, 1, 1)`` tensor of three numbers."""
    return torch.tensor(values, dtype=torch.float32, device=device).reshape(3, 1, 1)


def _forget_digest(module: Backbone, _incompatible: object) -> None:
    """Drop the cached hash when other weights are loaded."""
    module._digest = None
