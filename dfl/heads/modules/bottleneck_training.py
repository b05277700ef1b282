"""Training a bottleneck on an array, by plain torch: for the transformer of the sklearn side."""

from threading import Lock
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dfl.heads.modules.bottleneck import Bottleneck
from dfl.heads.modules.losses import bottleneck_loss
from dfl.heads.settings import BottleneckSettings

Array = npt.NDArray[np.float32]

_ROWS: Final = 4096  # at a time, where all of them are passed through
_ONE_AT_A_TIME: Final = Lock()  # threads share torch's random numbers


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
    with _ONE_AT_A_TIME, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(settings.seed))
        model = Bottleneck(
            features.shape[1],
            settings.hidden_dims,
            settings.code_dim,
            tied=settings.tied,
            noise=settings.noise,
            variational=settings.kl_weight > 0,
        )
        model.normalise.fit(features, block=block)
        _optimise(model, features, label, settings)
    return model.eval()


def _optimise(
    model: Bottleneck,
    features: npt.NDArray[np.number],
    label: npt.NDArray[np.int64] | None,
    settings: BottleneckSettings,
) -> None:
    batches = -(-len(features) // settings.batch_size)
    highest = float(settings.learning_rate)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=highest, weight_decay=float(settings.weight_decay), fused=True
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, highest, total_steps=settings.epochs * batches
    )
    for _ in range(settings.epochs):
        order = torch.randperm(len(features)).numpy()
        for rows in np.array_split(order, batches):  # no batch is much smaller than the others
            rows.sort()  # a memory map is read forwards
            loss, _terms = bottleneck_loss(
                model(_tensor(features[rows])),
                None if label is None else torch.from_numpy(label[rows]),
                kl_weight=settings.kl_weight,
                classify_weight=settings.classify_weight,
            )
            optimizer.zero_grad()
            loss.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()


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
        output = model(_tensor(features[start : start + block]))
        error += (output.reconstruction - output.standardised).square().sum().item()
        variance += output.standardised.square().sum().item()
    return error / variance if variance > 0 else 0.0


def encoder_arrays(model: Bottleneck) -> tuple[Array, Array, list[Array], list[Array]]:
    """Copy the encoder: mean, variance, and the weights and biases of its linear layers."""
    layers = [layer for layer in model.encoder if isinstance(layer, nn.Linear)]
    return (
        _array(model.normalise.running_mean),
        _array(model.normalise.running_var),
        [_array(layer.weight) for layer in layers],
        [_array(layer.bias) for layer in layers],
    )


def _tensor(rows: npt.NDArray[np.number]) -> Tensor:
    return torch.from_numpy(np.array(rows, dtype=np.float32))  # a copy: a map may be read-only


def _array(tensor: Tensor) -> Array:
    return tensor.detach().numpy().copy()
