"""The command `extract`: images in, a feature folder out."""

import logging
from pathlib import Path

import dfl.app.register  # noqa: F401  short names of classes
from dfl.app.extraction import origin_of, run_extraction
from dfl.app.prediction import device_kind
from dfl.backbones import Backbone, FusedBackbone
from dfl.backbones.engines import Engine
from dfl.backbones.precision import Precision
from dfl.backbones.runner import Runner
from dfl.data import ImageDataModule
from dfl.features.extraction import ExtractionDataModule, Target
from dfl.features.store import FeatureStore
from dfl.recipe import describe, has_random_weights

logger = logging.getLogger(__name__)

_VIEW = "view"


def extract(
    data: ImageDataModule,
    backbones: dict[str, Backbone],
    out: Path,
    overwrite: bool = False,
    precision: Precision | None = None,
    engine: Engine = "eager",
    accelerator: str = "auto",
    devices: int | str = "auto",
    num_nodes: int = 1,
    strategy: str = "auto",
) -> FeatureStore | None:
    """Run frozen backbones over images and keep what they see in a feature folder.

    Every image goes through each backbone once. On several devices each process writes its own
    shards. A run that was interrupted goes on where it stopped when it is started again, and makes
    anew what was damaged; a finished one is checked, and does nothing. A second run into the same
    folder waits for the first.

    Args:
        data: The images: pairs, a manifest or a folder tree.
        backbones: Frozen backbones by name, each with the layers to keep: class_path is
            dfl.backbones.from_zoo with a name of the zoo, or a class for any timm or open_clip
            model.
        out: The feature folder to make.
        overwrite: Replace the folder if it holds other features.
        precision: Numeric precision of the backbones, auto for what the hardware is fast at; by
            default auto on an accelerator, and 32-true on a CPU. Features are stored as float32
            whatever it is.
        engine: What carries out the passes: eager (torch as it is), compile (torch.compile, which
            takes a minute first) or openvino.
        accelerator: Lightning's accelerator: auto, cpu, gpu, ...
        devices: Number of devices on each node, or auto.
        num_nodes: Number of nodes.
        strategy: Lightning's strategy: auto, ddp, ...

    Returns:
        The feature folder, opened; None on all processes but the first, whose machines may see it
        later.

    Raises:
        FeatureError: If the folder holds other features and `overwrite` is not set.
    """
    runner = Runner(
        FusedBackbone(backbones),
        device=device_kind(accelerator),
        precision=precision,
        engine=engine,
    )
    random = [name for name, each in backbones.items() if has_random_weights(describe(each))]
    if random:
        logger.warning(
            "%s: random weights (pretrained: false), other ones in each run: what is trained on "
            "these features fits no others; weights: FILE keeps them",
            ", ".join(random),
        )
    target = Target(out, _VIEW, runner.spec, origin_of(backbones, data, runner))
    images = ExtractionDataModule(
        {_VIEW: data}, [target], execution=runner.description, overwrite=overwrite
    )
    trainer = run_extraction(images, runner, accelerator, devices, num_nodes, strategy)
    if not trainer.is_global_zero:
        return None
    store = FeatureStore.open(out)
    done = "wrote" if images.plans else "nothing to do, already there:"
    size, layers = sum(layer.dim for layer in store.spec), ", ".join(store.layers())
    print(f"{done} {out}: {len(store.manifest)} rows x {size} values ({layers})")
    return store
