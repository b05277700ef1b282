"""The command `bench`: images per second of the data path, of the backbones, and of `extract`."""

import copy
from pathlib import Path

import pandas as pd
import torch

import dfl.app.register  # noqa: F401  short names of classes
from dfl.app.prediction import device_kind
from dfl.backbones import Backbone, FusedBackbone
from dfl.backbones.engines import Engine
from dfl.backbones.precision import Precision
from dfl.backbones.runner import Runner
from dfl.bench.plain_loop import plain_loop
from dfl.bench.rates import BenchImages, backbone_rate, cosine_to, data_rate, extract_rate
from dfl.bench.table import print_rates
from dfl.data import ImageDataModule
from dfl.errors import ConfigError
from dfl.files import writing


def bench(
    data: ImageDataModule,
    backbones: dict[str, Backbone],
    out: Path | None = None,
    images: int = 512,
    repeats: int = 3,
    plain: bool = True,
    precision: Precision = "auto",
    engine: Engine = "eager",
    accelerator: str = "auto",
) -> pd.DataFrame:
    """Measure how fast this machine turns images into features, and what holds it back.

    Measures in turn, several times: the data path alone (read, decode, crop), the backbones alone
    on images in memory, and `dfl extract`, which needs both, on one device. Where extract is much
    slower than the backbones alone, give it more workers (data.num_workers). For comparison, the
    plain loop of most published detectors: Pillow, two workers, float32, batches of 32.

    Args:
        data: The images: pairs, a manifest or a folder tree.
        backbones: Frozen backbones by name, as for extract.
        out: A CSV file for the rates of every repeat; none by default.
        images: How many images, evenly over the set; all where it has fewer.
        repeats: How often everything is measured.
        plain: Measure the plain loop too, which is slow; --no_plain leaves it out.
        precision: Numeric precision of the backbones, auto for what the hardware is fast at.
        engine: What carries out the passes: eager (torch as it is), compile (torch.compile) or
            openvino.
        accelerator: Lightning's accelerator: auto, cpu, gpu, ...

    Returns:
        Images per second: a row a repeat, the columns ``data``, ``backbone``, ``extract`` and
        ``plain``.

    Raises:
        ConfigError: If a number is out of range, or `out` is no CSV file.
    """
    for name, value in (("images", images), ("repeats", repeats)):
        if value < 1:
            raise ConfigError(f"{name}: must be at least 1, got {value}")
    if out is not None and out.suffix != ".csv":
        raise ConfigError(f"out: must end in .csv, got {out}")
    reference = FusedBackbone(copy.deepcopy(backbones))
    runner = Runner(
        FusedBackbone(backbones),
        device=device_kind(accelerator),
        precision=precision,
        engine=engine,
    )
    reference.to(torch.device(runner.device))
    print(f"precision {runner.precision}, engine {runner.engine}")
    chosen = BenchImages.choose(data, images, pin_memory=runner.device == "cuda")
    rows, warm_ups_s = [], []
    for _ in range(repeats):
        row = {"data": data_rate(chosen)}
        row["backbone"], warm_up_s, features = backbone_rate(runner, chosen)
        row["extract"] = extract_rate(runner, chosen, accelerator)
        if plain:
            row["plain"] = len(chosen) / plain_loop(reference, chosen.files())
        rows.append(row)
        warm_ups_s.append(warm_up_s)
    rates = pd.DataFrame(rows)
    cosine = cosine_to(reference, features, chosen)
    print_rates(rates, images=len(chosen), warm_up_s=warm_ups_s[0], cosine=cosine)
    if out is not None:
        with writing(out) as partial:
            rates.to_csv(partial, index=False)
    return rates
