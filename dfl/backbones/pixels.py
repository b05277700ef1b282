"""8-bit images as a network takes them: of its size, scaled and normalised."""

import logging
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from dfl.errors import BackboneError

logger = logging.getLogger(__name__)

RESIZE = "bicubic-antialias-float"
"""Part of a backbone's fingerprint: change it when the resize below changes."""


def check_pixels(image: Tensor) -> None:
    """Refuse what is no batch of 8-bit images.

    Args:
        image: uint8 RGB, shape ``(B, 3, H, W)``, or ``(B, V, 3, H, W)`` for V crops of each image.

    Raises:
        BackboneError: If the images have another dtype or shape.
    """
    if image.dtype != torch.uint8 or image.ndim not in (4, 5) or image.shape[-3] != 3:
        raise BackboneError(
            f"images are {image.dtype} of shape {tuple(image.shape)}; a backbone takes uint8 "
            "of shape (B, 3, H, W) or (B, V, 3, H, W): leave scaling and normalisation to it"
        )


def normalised(image: Tensor, input_size: int, mean: Tensor, std: Tensor) -> Tensor:
    """Resize, scale and normalise.

    An image whose sides are not ``input_size`` is resized to that square, bicubic with
    antialiasing, in float32 and not rounded back to 8 bit; one of that size is left as it is.

    Args:
        image: uint8, shape ``(N, 3, H, W)``.
        input_size: Side of the square, in pixels.
        mean: Subtracted from RGB in [0, 1]; shape ``(3, 1, 1)``.
        std: RGB is divided by it afterwards; shape ``(3, 1, 1)``.

    Returns:
        Shape ``(N, 3, input_size, input_size)``, float32.
    """
    pixels = image.to(torch.float32)
    if image.shape[-2:] != (input_size, input_size):
        pixels = _resized(pixels, input_size).clamp(0, 255)  # bicubic overshoots at edges
    return (pixels / 255 - mean) / std


def _resized(pixels: Tensor, side: int) -> Tensor:
    resize = partial(interpolate, size=(side, side), mode="bicubic", antialias=True)
    try:
        return resize(pixels)
    except RuntimeError:
        # Apple's GPUs cannot before torch 2.8, and CUDA's not to a small part of a large image
        return resize(pixels.cpu()).to(pixels.device)


def say_look(
    model: str, weights: str, mean: Sequence[float], std: Sequence[float], origin: str
) -> None:
    """Report once for a network what its weights are and how its images are normalised.

    Args:
        model: The network's name.
        weights: What was loaded.
        mean: Subtracted from RGB in [0, 1].
        std: RGB is divided by it afterwards.
        origin: Who says that these are the ones.
    """
    logger.info(
        "%s: %s; images are normalised by mean %s and std %s, %s",
        model,
        weights,
        " ".join(f"{value:.3f}" for value in mean),
        " ".join(f"{value:.3f}" for value in std),
        origin,
    )
