"""The command `reconstruct`: photographs in, aligned fakes out."""

import logging
from math import lcm
from pathlib import Path

import dfl.app.register  # noqa: F401  short names of classes
from dfl.app.prediction import run_prediction
from dfl.data import ImageDataModule, Manifest
from dfl.errors import ConfigError
from dfl.reconstruct import Mixing, Reconstructor
from dfl.reconstruct.plan import MANIFEST, RECONSTRUCTIONS, Jpeg, Settings, check_names
from dfl.reconstruct.task import ReconstructionDataModule, ReconstructionTask

logger = logging.getLogger(__name__)


def reconstruct(
    data: ImageDataModule,
    reconstructors: dict[str, Reconstructor],
    out: Path,
    max_side: int | None = None,
    jpeg: Jpeg = "none",
    mixing: Mixing | None = None,
    seed: int = 0,
    overwrite: bool = False,
    accelerator: str = "auto",
    devices: int | str = "auto",
    num_nodes: int = 1,
    strategy: str = "auto",
) -> Manifest | None:
    """Draw training photographs again, by decoders: fakes that differ in nothing else.

    The real images of the training split are taken, never one of validation or test, whole or in a
    native crop; crop and transforms of the data are left aside, and no pixel is resampled. Each
    reconstructor is a generator of its own. Beside the copies lie the photographs in the same crop,
    and a manifest in which a photograph and its copies share the photograph's group. All files are
    PNGs. A run that was interrupted goes on where it stopped when it is started again, and makes
    anew what was damaged or whose photograph has changed; a finished one is checked, and does
    nothing.

    Args:
        data: The images: pairs, a manifest or a folder tree.
        reconstructors: What draws the copies, by name, which is the generator's: class_path is
            dfl.reconstruct.Taef2, dfl.reconstruct.DiffusersAutoencoder or another class of
            dfl.reconstruct.
        out: The folder to make: NAME/<the photograph's path>.png for each reconstructor, real/ for
            the photographs, manifest.csv.
        max_side: The longest side that is drawn, in pixels; what is longer is cut to its middle. By
            default images are drawn whole, whatever memory that takes.
        jpeg: Compress copies once more as their photographs were, by the same tables (same), or do
            not (none). They are PNGs all the same.
        mixing: Mix copies with their photographs: in pixels, in frequency bands, by patches, each
            with a probability. By default they are not mixed.
        seed: The seed of what is drawn for that; no order and no number of processes changes it.
        overwrite: Replace copies that were made by other reconstructors or settings.
        accelerator: Lightning's accelerator: auto, cpu, gpu, ...
        devices: Number of devices on each node, or auto.
        num_nodes: Number of nodes.
        strategy: Lightning's strategy: auto, ddp, ...

    Returns:
        The manifest; None on all processes but the first.

    Raises:
        ConfigError: If a setting is out of range, or a name cannot be a generator's.
        DataError: If no photograph is trained on, or the folder holds other copies.
    """
    check_names(list(reconstructors))
    unit = lcm(*(each.stride for each in reconstructors.values()))
    if max_side is not None and max_side < unit:
        raise ConfigError(
            f"max_side: must be at least {unit}, of which the sides are multiples, got {max_side}"
        )
    images = ReconstructionDataModule(
        data, reconstructors, out, Settings(unit, max_side, jpeg, mixing, seed), overwrite=overwrite
    )
    task = ReconstructionTask(images)
    try:
        trainer = run_prediction(
            task,
            images,
            accelerator=accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=strategy,
        )
        if not trainer.is_global_zero:
            return None
        plan = images.plan
        if RECONSTRUCTIONS.find(out, plan.fingerprint()) is None:
            plan.seal()
    finally:
        task.close()
        images.close()
    total, limit = len(plan.contents), "" if max_side is None else f", {max_side} at most"
    print(
        f"{total} photographs of the training split; sides cut to multiples of {unit} pixels{limit}"
    )
    for folder, made in images.pending.items():
        print(f"{out / folder}: {made} made, {total - made} there before")
    return Manifest.read(out / MANIFEST)
