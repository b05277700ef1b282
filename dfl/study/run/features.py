"""The images of a study, and their features: one folder a condition and backbone."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch

from dfl.app.extraction import origin_of, run_extraction
from dfl.app.prediction import device_kind
from dfl.backbones import Backbone, FusedBackbone
from dfl.backbones.precision import Precision, SettledPrecision, autocast
from dfl.backbones.runner import Runner
from dfl.data import Crop, ImageDataModule, Manifest
from dfl.data.images.preprocess import Draw, SameFor
from dfl.data.images.transforms import Augmentation
from dfl.errors import ConfigError, DataError
from dfl.evaluation import known_rows
from dfl.features.extraction import ExtractionDataModule, Target
from dfl.features.hashing import distinct_images
from dfl.features.store import FEATURES
from dfl.processes import is_one_of_several, launched_rank
from dfl.study.run.condition_features import ConditionFeatures

_TIMED = 4  # images
_ADVICE = "name another folder with --features_dir, or delete this one"


@dataclass
class Draws:
    """Seeded draws of the training images, all of which a head learns from.

    An image weighs as much as without draws: the weights of its draws sum to one. Nothing is
    validated or tested on draws.

    Args:
        transforms: What happens to images, after the data's own ``eval_transforms``; the same for
            real and fake ones.
        count: How many draws there are of each image.
        crop: What a backbone sees of an image; the data's own crop by default.
        same_for: Whether the images of a ``group``, as a photograph and its reconstruction, share
            the random numbers of a draw, or each ``image`` has its own.
        beside: Names of conditions whose images are learnt from as well, each as one more draw.
    """

    transforms: list[Augmentation] = field(default_factory=list)
    count: int = 4
    crop: Crop | None = None
    same_for: SameFor = "group"
    beside: list[str] = field(default_factory=list)


def check_draws(
    draws: Mapping[str, Draws],
    conditions: Mapping[str, list[Augmentation]],
    data: ImageDataModule,
) -> None:
    """Refuse draws that cannot be made, or that are no other images than there were.

    Raises:
        ConfigError: If there are any; all that is wrong is named.
    """
    faults: list[str] = []
    for name, each in draws.items():
        transforms = [*data.eval_transforms, *each.transforms]
        is_random = any(step.is_random for step in transforms) or (each.crop or data.crop).is_random
        if name in conditions:
            faults.append(f"draws.{name}: a condition is called so too; rename one of them")
        if each.count < 1:
            faults.append(f"draws.{name}.count: must be at least 1, got {each.count}")
        if not is_random:
            faults.append(
                f"draws.{name}: nothing is random in its transforms and its crop, so all draws are "
                "the same; give ranges or probabilities, or make it a condition for training"
            )
        if unknown := [beside for beside in each.beside if beside not in conditions]:
            faults.append(
                f"draws.{name}.beside: no condition {', '.join(unknown)}; there are: "
                f"{', '.join(conditions)}"
            )
    if faults:
        raise ConfigError("; ".join(faults))


def drawn_conditions(draws: Mapping[str, Draws]) -> dict[str, tuple[str, ...]]:
    """Name the conditions that heads trained on draws learn from, those of the draws first."""
    return {
        name: (*(f"{name}.{number}" for number in range(1, each.count + 1)), *each.beside)
        for name, each in draws.items()
    }


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
        crops: By condition, what is seen of its images; the data's own crop by default.
        draws: Draws by name; each is one more condition, ``NAME.1`` and so on. They are made of all
            images: with several seeds, and whatever is left out, nearly every image is trained on.
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
        crops: Mapping[str, Crop] | None = None,
        draws: Mapping[str, Draws] | None = None,
    ) -> None:
        # no feature depends on splits, and none but those of draws on groups: studies that differ
        # in them share their features
        frame = data.manifest.frame.assign(split="", group="")
        images = Manifest(frame, data.manifest.root)
        self._data = {
            condition: data.of(
                images,
                eval_transforms=[*data.eval_transforms, *eval_transforms],
                crop=(crops or {}).get(condition),
            )
            for condition, eval_transforms in conditions.items()
        }
        for name, each in (draws or {}).items():
            for number in range(1, each.count + 1):
                self._data[f"{name}.{number}"] = data.of(
                    data.manifest,
                    eval_transforms=[*data.eval_transforms, *each.transforms],
                    crop=each.crop,
                    draw=Draw(number, each.same_for),
                )
        self._backbones = backbones
        self._runner = Runner(
            FusedBackbone(backbones), device=device_kind(accelerator), precision=precision
        )
        self._timed: dict[str, float] = {}
        self.paths = {
            condition: {name: root / condition / name for name in backbones}
            for condition in self._data
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
