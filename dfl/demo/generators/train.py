"""Train one of the three generators and write its sheets: how ``dfl/demo/images`` was made.

    python -m dfl.demo.generators.train --family gan --out runs/gan

It runs on one thread of one CPU, keeps a checkpoint as it goes and continues from it when called
again. The shipped images come from the default settings and seed 0; the diffusion model was first
taken to the end of a shorter schedule (``--num-updates 2000``) and then continued to the end of the
default one. On half a core of a busy machine that took 830 s for the GAN, 1320 s for the diffusion
model and 270 s for the VAE.
"""

import argparse
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch.optim import Optimizer

from dfl.demo.generators.batches import RandomCrops
from dfl.demo.generators.diffusion import DiffusionImitator
from dfl.demo.generators.gan import GanImitator
from dfl.demo.generators.imitator import Imitator
from dfl.demo.generators.sheets import write_sheets
from dfl.demo.generators.vae import VaeImitator

logger = logging.getLogger(__name__)

BATCH_SIZE: Final = 8
AVERAGE_DECAY: Final = 0.995
CHECKPOINT_EVERY: Final = 100


@dataclass(frozen=True)
class Recipe:
    """How a family is trained.

    Attributes:
        imitator: The generator's class.
        num_updates: How many batches it sees.
        lr: Learning rate at the start; it falls to zero along a half cosine.
    """

    imitator: type[Imitator]
    num_updates: int
    lr: float


RECIPES: Final = {
    "gan": Recipe(GanImitator, num_updates=1000, lr=4e-4),
    "diffusion": Recipe(DiffusionImitator, num_updates=3500, lr=1e-3),
    "vae": Recipe(VaeImitator, num_updates=800, lr=2e-3),
}


class TrainingRun:
    """A generator on its way: weights, their moving average, optimizers and the noise's state.

    Args:
        recipe: How to train.
        seed: Of the initial weights, the crops and the noise.
        num_updates: In place of the recipe's.
    """

    def __init__(self, recipe: Recipe, *, seed: int, num_updates: int | None = None) -> None:
        self.recipe = recipe
        self.num_updates = recipe.num_updates if num_updates is None else num_updates
        torch.manual_seed(seed)
        self.imitator = recipe.imitator().to(memory_format=torch.channels_last)
        self.average = {k: v.detach().clone() for k, v in self.imitator.named_parameters()}
        self.optimizers = self.imitator.optimizers(recipe.lr)
        self.base_lrs = [o.param_groups[0]["lr"] for o in self.optimizers]
        self.generator = torch.Generator().manual_seed(seed)
        self.crops = RandomCrops(BATCH_SIZE, generator=self.generator)
        self.update_index = 0
        self.seconds = 0.0

    def update(self) -> dict[str, float]:
        """Train on one batch and return its losses."""
        start = time.monotonic()
        remaining = 0.5 + 0.5 * math.cos(math.pi * self.update_index / self.num_updates)
        for optimizer, lr in zip(self.optimizers, self.base_lrs, strict=True):
            _set_lr(optimizer, lr * remaining)
        real = self.crops.draw().contiguous(memory_format=torch.channels_last)
        losses = self.imitator.update(real, self.optimizers, generator=self.generator)
        # young averages forget faster, or the random start stays in them
        decay = min(AVERAGE_DECAY, (1 + self.update_index) / (10 + self.update_index))
        with torch.no_grad():
            for name, parameter in self.imitator.named_parameters():
                self.average[name].lerp_(parameter, 1.0 - decay)
        self.update_index += 1
        self.seconds += time.monotonic() - start
        return losses

    def averaged(self) -> Imitator:
        """Return a generator with the averaged weights."""
        imitator = self.recipe.imitator()
        imitator.load_state_dict(self.imitator.state_dict() | self.average)
        return imitator.eval()

    def save(self, path: Path) -> None:
        """Write everything needed to continue, beside ``path`` first."""
        state = {
            "imitator": self.imitator.state_dict(),
            "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "generator": self.generator.get_state(),
            "update_index": self.update_index,
            "seconds": self.seconds,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Continue from what ``save`` wrote with the same recipe."""
        state = torch.load(path, weights_only=True)
        self.imitator.load_state_dict(state["imitator"])
        self.average = state["average"]
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        self.update_index = state["update_index"]
        self.seconds = state["seconds"]


def main(args: list[str] | None = None) -> None:
    """Train as the command line says.

    Args:
        args: The arguments, or None for those of the process.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", choices=sorted(RECIPES), required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and sheets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-updates", type=int, help="in place of the recipe's")
    options = parser.parse_args(args)

    torch.set_num_threads(1)
    run = TrainingRun(RECIPES[options.family], seed=options.seed, num_updates=options.num_updates)
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / f"{options.family}.pt"
    if checkpoint.exists():
        run.load(checkpoint)
        logger.info("%s: continuing after update %d", checkpoint, run.update_index)
    while run.update_index < run.num_updates:
        losses = run.update()
        if run.update_index % CHECKPOINT_EVERY == 0 or run.update_index == run.num_updates:
            run.save(checkpoint)
            shown = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
            logger.info("update %d, %.0f s: %s", run.update_index, run.seconds, shown)
    write_sheets(run.averaged(), options.out / options.family, seed=options.seed)


def _set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    main()
