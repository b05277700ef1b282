"""The command `demo`: the whole way, on photographs that come with PyPI packages."""

import shlex
import time
from importlib.resources import files
from pathlib import Path

from dfl.app.dispatch import run
from dfl.demo import demo_weights, draw_contact_sheet, write_demo
from dfl.files import writing
from dfl.processes import launched_rank

_PURPOSE = """\
The demo shows that everything works, on this machine and offline: real photographs against images
of three small generators (a GAN, a diffusion model, a VAE), tested on photographs that neither the
heads nor the generators have seen. It says nothing about today's generators: for those, train on
images of your own."""


def demo(out: Path = Path("demo"), seed: int = 0) -> None:
    """Run the whole way on photographs that come with PyPI packages, in about a minute.

    Real photographs are cut from the wheels of scikit-image and others; generated images of three
    families are in the package. A frozen EfficientNet-Lite0 turns them into features, a linear
    probe and three sklearn heads are trained on those, and all are tested on unseen photographs.
    Each step is a command that is printed before it runs. Needs the extra: pip install "dfl[demo]".

    Args:
        out: The folder for images, features, heads and results.
        seed: Decides the order of training.

    Raises:
        ConfigError: If the packages of the extra are not installed.
    """
    if launched_rank():  # one process is enough, and others would write the same files
        return
    started = time.monotonic()
    print(_PURPOSE, end="\n\n", flush=True)
    manifest = write_demo(out / "images")
    with writing(out / "contact_sheet.png") as partial:
        draw_contact_sheet().save(partial, format="PNG")
    print(f"{len(manifest)} rows in {out}/images/manifest.csv; look at {out}/contact_sheet.png:")
    print(
        "for each photograph, the rows are real crops, then the GAN, the diffusion model, the VAE"
    )
    for command in _commands(out, demo_weights(out), seed):
        print(f"\n$ dfl {shlex.join(command)}", flush=True)
        run(command)
    print(f"\nThe demo took {time.monotonic() - started:.0f} s. {out}/results has plots and a CSV.")


def _commands(out: Path, weights: Path, seed: int) -> list[list[str]]:
    configs = out / "configs"
    configs.mkdir(exist_ok=True)
    for source in files("dfl.demo").joinpath("configs").iterdir():
        (configs / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    features = f"--data.features={out / 'features'}"
    fit = [f"--config={configs / 'probe.yaml'}", features, f"--trainer.logger.save_dir={out}"]
    fit += [f"--seed_everything={seed}", f"--data.seed={seed}"]
    return [
        [
            "extract",
            f"--config={configs / 'extract.yaml'}",
            f"--data.source.path={out / 'images' / 'manifest.csv'}",
            f"--data.splits.folder={out / 'splits'}",
            f"--backbones.lite0.weights={weights}",
            f"--out={out / 'features'}",
            "--devices=1",  # of several, each process would begin this command anew
            "--overwrite",
        ],
        [
            "heads",
            f"--config={configs / 'heads.yaml'}",
            f"--features={out / 'features'}",
            f"--out={out / 'heads'}",
            "--overwrite",
        ],
        ["fit", *fit],
        [
            "test",
            *fit,
            "--trainer.logger.name=heads",
            "--trainer.logger.version=linear_probe",
            f"--ckpt_path={out / 'probe' / 'fit' / 'checkpoints' / 'best.ckpt'}",
        ],
        ["evaluate", f"--scores={out / 'heads'}", f"--out={out / 'results'}"],
    ]
