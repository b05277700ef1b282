"""Training a bottleneck on an array, by plain torch: for the transformer of the sklearn side."""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dfl.heads.modules.bottleneck import Bottleneck
from dfl.heads.modules.losses import bottleneck_loss
from dfl.heads.modules.training import array, optimise, own_random_numbers, tensor
from dfl.heads.settings import BottleneckSettings

Array = npt.NDArray[np.float32]

_ROWS: Final = 4096  # at a time, where all of them are passed through


def train_bottleneck(
    features: npt.NDArray[np.number],
    label: npt.NDArray[np.int64] | None,
    settings: BottleneckSettings,
    *,
    block: int = _ROWS,
) -> Bottleneck:
    """Build a bottleneck and train it on the CPU; torch's own random numbers stay as they were.

    Args:
        features: Shape ``(N, D)``; a memory map is read batch by batch.
        label: ``REAL`` or ``FAKE``, shape ``(N,)``; needed where the classification has a weight.
        settings: Without a problem.
        block: Rows at a time, where all of them are passed through.

    Returns:
        The bottleneck, in evaluation mode.
    """
    truth = None if label is None else torch.from_numpy(label)
    with own_random_numbers(settings.seed):
        model = Bottleneck(
            features.shape[1],
            settings.hidden_dims,
            settings.code_dim,
            tied=settings.tied,
            noise=settings.noise,
            variational=settings.kl_weight > 0,
        )
        model.normalise.fit(features, block=block)

        def loss(batch: Tensor, rows: npt.NDArray[np.int64]) -> Tensor:
            each, _ = bottleneck_loss(
                model(batch),
                None if truth is None else truth[rows],
                kl_weight=settings.kl_weight,
                classify_weight=settings.classify_weight,
            )
            return each

        optimise(model, features, settings, loss)
    return model.eval()


@torch.no_grad()
def unexplained(
    model: Bottleneck, features: npt.NDArray[np.number], *, block: int = _ROWS
) -> float:
    """Measure what a trained bottleneck does not reconstruct.

    Args:
        model: In evaluation mode.
        features: The training features, shape ``(N, D)``.
        block: Rows at a time.

    Returns:
        The squared error as a fraction of the variance, both of standardised features: 0 is
        perfect, 1 is no better than the mean. 0 where nothing varies.
    """
    error = variance = 0.0
    for start in range(0, len(features), block):
        output = model(tensor(features[start : start + block]))
        error += (output.reconstruction - output.standardised).square().sum().item()
        variance += output.standardised.square().sum().item()
    return error / variance if variance > 0 else 0.0


def encoder_arrays(model: Bottleneck) -> tuple[Array, Array, list[Array], list[Array]]:
    """Copy the encoder: mean, variance, and the weights and biases of its linear layers."""
    layers = [layer for layer in model.encoder if isinstance(layer, nn.Linear)]
    return (
        array(model.normalise.running_mean),
        array(model.normalise.running_var),
        [array(layer.weight) for layer in layers],
        [array(layer.bias) for layer in layers],
    )
