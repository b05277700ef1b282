"""What lies on disk as a detector: the folder of a head, or a checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from torch import Tensor

from dfl.backbones import Backbone
from dfl.data import Augmentation, Crop
from dfl.data.images.preprocess import Preprocess
from dfl.errors import BackboneError, CheckpointError, ConfigError, named
from dfl.heads.storage.checkpoint import HeadDescription, read_checkpoint
from dfl.heads.storage.head_folder import HEAD, HEAD_MODEL, load_head
from dfl.heads.tasks.scoring import ScoringTask
from dfl.heads.tasks.sklearn_head import SklearnHeadTask
from dfl.recipe import RANDOM_WEIGHTS, Plain, build, has_random_weights


def read_detector(
    path: Path, weights: Mapping[str, str]
) -> tuple[ScoringTask, Preprocess, tuple[float, float], str]:
    """Build a detector from what is stored of it.

    Args:
        path: A head's folder or a file in it, a checkpoint, or a folder that holds one checkpoint.
        weights: Local weight files by backbone name, in place of those it was trained with.

    Returns:
        The task, what becomes of an image before it, slope and intercept of the log-odds of fake in
        the score, before the threshold is taken off, and the precision that it was trained in.

    Raises:
        CheckpointError: If there is no detector, or its backbones are other ones.
        BackboneError: If a backbone cannot be built again.
        HeadError: If a head's folder is damaged.
    """
    path = _place_of(path)
    if path.is_dir():
        head = load_head(path)
        preprocess = _preprocess(path, head.origin.preprocess)
        backbones = _backbones(path, head.origin.backbones, weights)
        task: ScoringTask = SklearnHeadTask(head, backbones)
        task.configure_model()
        return task, preprocess, head.calibration, head.origin.precision
    checkpoint = read_checkpoint(path)
    about = HeadDescription.load(checkpoint)
    preprocess = _preprocess(path, about.origin.preprocess)
    task = _task(path, about, _backbones(path, about.origin.backbones, weights))
    task.on_load_checkpoint(checkpoint)
    task.load_state_dict(cast(dict[str, Tensor], checkpoint["state_dict"]))
    return task, preprocess, about.calibration, about.origin.precision


def _place_of(path: Path) -> Path:
    """Return the folder of a head, or the checkpoint, that a path stands for."""
    if path.name in (HEAD.document, HEAD_MODEL):
        return path.parent
    if not path.is_dir() or (path / HEAD.document).exists():
        return path
    networks = sorted(path.glob("*.ckpt"))
    if len(networks) == 1:
        return networks[0]
    heads = [file.parent for file in path.rglob(HEAD.document)]
    # folders that begin with a dot are of heads that are half made, or were replaced
    inside = sorted(
        str(each)
        for each in (*heads, *path.rglob("*.ckpt"))
        if not any(part.startswith(".") for part in each.relative_to(path).parts)
    )
    if inside:
        raise CheckpointError(
            f"{path}: is not a detector itself; give one of those in it: {named(inside)}"
        )
    return path


def _preprocess(path: Path, recipe: Plain) -> Preprocess:
    if not isinstance(recipe, dict):
        raise CheckpointError(
            f"{path} does not say how its images are cropped; train it on images or on a folder of "
            "`dfl extract`"
        )
    return Preprocess(
        cast(Crop, build(recipe["crop"])),
        tuple(cast(list[Augmentation], build(recipe["transforms"]))),
        cast(int, recipe.get("seed", 0)),
    )


def _backbones(path: Path, recipes: Plain, weights: Mapping[str, str]) -> dict[str, Backbone]:
    if not isinstance(recipes, dict):
        raise CheckpointError(
            f"{path} does not say which backbones make its features; train it on pixels or on "
            "a folder of `dfl extract` (for codes, put the bottleneck in front of the head)"
        )
    if unknown := set(weights) - set(recipes):
        raise CheckpointError(
            f"weights for {sorted(unknown)}, but {path} has the backbones {list(recipes)}"
        )
    for name, file in weights.items():
        recipe = cast(dict[str, dict[str, Plain]], recipes[name])
        while "backbone" in recipe["init_args"]:  # one that is made of another one
            recipe = cast(dict[str, dict[str, Plain]], recipe["init_args"]["backbone"])
        if recipe["init_args"].get("pretrained") is False:  # that is, random ones
            del recipe["init_args"]["pretrained"]
        recipe["init_args"]["weights"] = file
    if has_random_weights(recipes):
        raise CheckpointError(f"{path}: {RANDOM_WEIGHTS}; train it on weights that are kept")
    try:
        return cast(dict[str, Backbone], build(recipes))
    except BackboneError as err:
        name = next(iter(recipes))
        raise BackboneError(
            f"{err}; if the weights are elsewhere by now, say where: --weights.{name} FILE, or in "
            f"Python weights={{{name!r}: FILE}}"
        ) from err


def _task(path: Path, about: HeadDescription, backbones: dict[str, Backbone]) -> ScoringTask:
    # a fine-tuned network stands on no backbones
    arguments = {**about.architecture, **({"backbones": backbones} if backbones else {})}
    try:
        task = build({"class_path": about.task, "init_args": cast(Plain, arguments)})
    except ConfigError as err:
        raise CheckpointError(f"{path} holds a {about.task}, which cannot be built: {err}") from err
    if not isinstance(task, ScoringTask):
        raise CheckpointError(f"{path} holds a {about.task}, which is not a detector")
    return task
