"""The images of a study, and their features: one folder a condition and backbone."""

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from dfl.app.extraction import origin_of, run_extraction
from dfl.app.prediction import device_kind
from dfl.backbones import Backbone, FusedBackbone
from dfl.backbones.precision import Precision, SettledPrecision, autocast
from dfl.backbones.runner import Runner
from dfl.data import ImageDataModule, Manifest
from dfl.data.images.transforms import Augmentation
from dfl.errors import DataError
from dfl.evaluation import known_rows
from dfl.features.extraction import ExtractionDataModule, Target
from dfl.features.hashing import distinct_images
from dfl.features.store import FEATURES
from dfl.processes import is_one_of_several, launched_rank
from dfl.study.run.condition_features import ConditionFeatures

_TIMED = 4  # images
_ADVICE = "name another folder with --features_dir, or delete this one"


def frames_by_seed(data: ImageDataModule, seeds: Sequence[int]) -> dict[int, pd.DataFrame]:
    """Split the images anew for every seed; no feature depends on that.

    Args:
        data: The images; it is set up.
        seeds: The seeds.

    Returns:
        The manifest's rows by seed, in the same order.

    Raises:
        DataError: If there is no validation or no test image.
    """
    data.prepare_data()
    data.setup()
    frames: dict[int, pd.DataFrame] = {}
    for seed in seeds:
        own = data if seed == data.seed else data.reseeded(seed)
        own.prepare_data()
        own.setup()
        frames[seed] = own.manifest.frame
        known = known_rows(frames[seed])
        for split in ("train", "val", "test"):
            if not (known["split"] == split).any():
                raise DataError(
                    f"no image is in the {split} split whose label is known (seed {seed}); a study "
                    "needs all three: "
                    "change data.splits.test_fraction or data.splits.val_fraction"
                )
    return frames


class FeatureFolders:
    """The feature folders of a study.

    Args:
        data: The images, set up.
        backbones: The backbones by name.
        conditions: Transforms by condition.
        root: The folder of all feature folders.
        precision: Numeric precision of the backbones, as `settle_precision` takes it.
        accelerator: Lightning's accelerator.
    """

    def __init__(
        self,
        data: ImageDataModule,
        backbones: Mapping[str, Backbone],
        conditions: Mapping[str, list[Augmentation]],
        root: Path,
        precision: Precision | None = None,
        *,
        accelerator: str = "auto",
    ) -> None:
        # no feature depends on splits and groups: studies that differ in them share their features
        frame = data.manifest.frame.assign(split="", group="")
        images = Manifest(frame, data.manifest.root)
        self._data = {
            condition: data.of(images, eval_transforms=[*data.eval_transforms, *eval_transforms])
            for condition, eval_transforms in conditions.items()
        }
        self._backbones = backbones
        self._runner = Runner(
            FusedBackbone(backbones), device=device_kind(accelerator), precision=precision
        )
        self._timed: dict[str, float] = {}
        self.paths = {
            condition: {name: root / condition / name for name in backbones}
            for condition in conditions
        }
        self.layers = [layer.name for layer in self._runner.spec]
        self.dims = {layer.name: layer.dim for layer in self._runner.spec}
        self.images = len(distinct_images(data.manifest)[0])

    @property
    def precision(self) -> SettledPrecision:
        """The precision that the backbones run in."""
        return self._runner.precision

    @cached_property
    def conditions(self) -> dict[str, ConditionFeatures]:
        """The features by condition, opened when they are asked for."""
        return {condition: ConditionFeatures(paths) for condition, paths in self.paths.items()}

    @cached_property
    def pending(self) -> dict[tuple[str, str], int]:
        """For every condition and backbone, how many images it had still to see at the beginning.

        Where several processes were started, this only looks which folders are there: to read all
        images takes long, and the others wait for this process no longer than half an hour. The
        extraction, where it keeps them informed, looks at everything in any case.

        Raises:
            FeatureError: If a folder holds other features, and this process is the only one.
        """
        if launched_rank():  # one process is enough to read all images and features
            return dict.fromkeys(self._targets, 0)
        if is_one_of_several():
            return {
                key: 0 if (target.out / FEATURES.document).is_file() else self.images
                for key, target in self._targets.items()
            }
        return dict(zip(self._targets, self._extraction().pending(), strict=True))

    @cached_property
    def complete(self) -> bool:
        """Whether all features were there at the beginning: seen, and joined."""
        return all(self.has(condition, name) for condition, name in self._targets)

    def has(self, condition: str, name: str) -> bool:
        """Whether the features of a condition and backbone were there and joined before."""
        target = self._targets[condition, name]
        return not self.pending[condition, name] and (target.out / FEATURES.document).is_file()

    @cached_property
    def _targets(self) -> dict[tuple[str, str], Target]:
        """One feature folder a condition and backbone, as `dfl extract` would make it."""
        return {
            (condition, name): Target(
                path,
                condition,
                tuple(layer for layer in self._runner.spec if layer.backbone == name),
                origin_of({name: self._backbones[name]}, self._data[condition], self._runner),
            )
            for condition, paths in self.paths.items()
            for name, path in paths.items()
        }

    def _extraction(self) -> ExtractionDataModule:
        return ExtractionDataModule(
            self._data,
            list(self._targets.values()),
            execution=self._runner.description,
            advice=_ADVICE,
        )

    @property
    def device(self) -> str:
        """The kind of device that the backbones run on, as torch names it."""
        return self._runner.device

    def seconds_per_image(self, name: str) -> float:
        """Time a backbone on its device, on one batch after another to warm up; once a backbone."""
        if name not in self._timed:
            self._timed[name] = self._time(name)
        return self._timed[name]

    def _time(self, name: str) -> float:
        backbone, on_cpu = self._backbones[name], self.device == "cpu"
        count = _TIMED if on_cpu else next(iter(self._data.values())).batch_size
        image = torch.zeros((count, 3, 224, 224), dtype=torch.uint8, device=self.device)
        backbone.to(self.device)
        try:
            with torch.inference_mode(), autocast(self._runner.precision, self.device):
                _wait_for(backbone(image[:1] if on_cpu else image))
                start = time.perf_counter()
                _wait_for(backbone(image))
                return (time.perf_counter() - start) / count
        finally:
            backbone.to("cpu")

    def extract(self, accelerator: str, devices: int | str, num_nodes: int, strategy: str) -> None:
        """Make what is missing; arguments as Lightning's.

        Every image is decoded once for all conditions and backbones.
        """
        if self.complete and not is_one_of_several():
            return
        images = self._extraction()
        trainer = run_extraction(images, self._runner, accelerator, devices, num_nodes, strategy)
        if trainer.is_global_zero:
            paths = [path for named in self.paths.values() for path in named.values()]
            for number in images.plans:
                print(f"wrote {paths[number]}: {self.images} images")


def _wait_for(features: Mapping[str, torch.Tensor]) -> None:
    """Let an accelerator finish, which returns before it has begun."""
    for value in features.values():
        value.cpu()
