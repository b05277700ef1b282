"""A whole network of timm that gives one logit an image."""

from pathlib import Path
from typing import cast

import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from dfl.backbones.pixels import check_pixels, normalised, say_look
from dfl.backbones.timm_network import (
    build_network,
    check_size,
    find_model,
    load_file,
    timm_options,
)
from dfl.backbones.weight_files import read_state, weights_in
from dfl.errors import ConfigError

_INIT_STD = 0.02  # of CNNDetection's classifier


class ImageClassifier(nn.Module):
    """Any timm model with one logit in place of its classes; all of it is to be trained.

    Resize and normalisation are part of it, as in a backbone. The normalisation is stored with the
    weights, so that a checkpoint does not depend on what timm says of a name.

    Args:
        model: timm's name, for example ``resnet50.tv_in1k``; as for ``dfl.backbones.TimmBackbone``.
        weights: A local file to start from in place of the hub's, in any layout that
            ``dfl.backbones.TimmBackbone`` reads. Its classifier is dropped; the rest must fit.
        pretrained: Start from the weights that belong to the name. False has to be said to start
            from random ones, and contradicts ``weights``.
        input_size: Side of the square input in pixels; None is the model's own.

    Raises:
        BackboneError: If there is no such model, if weights are missing or do not fit, or if the
            model cannot take the input size.
        ConfigError: If the arguments contradict each other.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: str,
        *,
        weights: Path | None = None,
        pretrained: bool = True,
        input_size: int | None = None,
    ) -> None:
        super().__init__()
        check_source(model, weights, pretrained)
        found = find_model(model)
        options = timm_options(found, input_size, None)
        options["num_classes"] = 0
        file = weights
        if file is None and found.folder is not None and pretrained:
            file = weights_in(found.folder)
        network = build_network(found, options, pretrained=pretrained and file is None)
        said = "weights of the hub" if pretrained else "random weights"
        if file is not None:
            source, fit = f"weights {str(file)!r}", input_size is not None
            state = read_state(file)
            said = load_file(found, network, state, source=source, fit=fit, has_head=False)
        look = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
        say_look(model, said, look["mean"], look["std"], found.origin)
        self.input_size = input_size or int(look["input_size"][-1])
        check_size(model, network, self.input_size)
        # convolutions on a CPU are a tenth faster with the channels innermost
        self.network = network.to(memory_format=torch.channels_last)
        self.head = nn.Linear(cast(int, network.head_hidden_size), 1)
        nn.init.normal_(self.head.weight, std=_INIT_STD)
        nn.init.zeros_(self.head.bias)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(look[name]).reshape(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Score images.

        Args:
            image: uint8 RGB, shape ``(B, 3, H, W)``, or ``(B, V, 3, H, W)`` for V crops of each
                image.

        Returns:
            Logits, shape ``(B,)``, float32, higher = fake; the mean over an image's crops.

        Raises:
            BackboneError: If the images have another dtype or shape.
        """
        check_pixels(image)
        flat = image.reshape(-1, *image.shape[-3:])
        pixels = normalised(flat, self.input_size, self.mean, self.std)
        features = self.network(pixels.contiguous(memory_format=torch.channels_last))
        # in 16 bit, scores of different images become equal
        with torch.autocast(image.device.type, enabled=False):
            logit: Tensor = self.head(features.float())
        return logit.reshape(image.shape[0], -1).mean(dim=1)


def check_source(model: str, weights: Path | None, pretrained: bool) -> None:
    """Check a model's name and where its first weights come from, without building it.

    Args:
        model: timm's name.
        weights: A local file, if any.
        pretrained: Whether the hub's weights are taken where there is no file.

    Raises:
        BackboneError: If timm has no such model.
        ConfigError: If a file and random weights are asked for at once.
    """
    find_model(model)
    if weights is not None and not pretrained:
        raise ConfigError(
            f"{model}: weights {str(weights)!r} and pretrained: false contradict each other; "
            "say one"
        )
