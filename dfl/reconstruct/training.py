"""Reconstructors that are trained on the photographs themselves, on one thread."""

import logging
import time
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dfl.backbones.weight_files import read_state
from dfl.backbones.weights import load_strictly
from dfl.data.images.decode import decode
from dfl.errors import ConfigError, DataError
from dfl.files import writing
from dfl.recipe import Recipe
from dfl.reconstruct.base import Reconstructor

logger = logging.getLogger(__name__)

_PHOTOGRAPHS: Final = 256
_PATCHES_EACH: Final = 8
_BATCH: Final = 8
_RATE: Final = 3e-3
_MADE_OF: Final = "made-of"


class TrainedReconstructor(Reconstructor):
    """A small network that learns from the photographs how to draw them.

    It is trained on one thread of a CPU, so that its weights are the same bits on any number of
    threads and processes. It sees all photographs that it is given: where one source of photographs
    is to be left out of a test altogether, it has to be left out here as well.

    Args:
        seed: The seed of its weights and of what it is shown.
        steps: Batches of eight patches that it is trained on.
        patch: Side of a patch in pixels.
        weights: Weights of one that was trained before, which is then not trained; None to train.
        family: The family of its images; its own name by default.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self, seed: int, steps: int, patch: int, weights: Path | None, family: str | None
    ) -> None:
        super().__init__(family)
        if steps < 1:
            raise ConfigError(f"steps: must be at least 1, got {steps}")
        self.seed = seed
        self.steps = steps
        self.patch = patch
        self.weights = weights
        with torch.random.fork_rng(devices=()):
            torch.default_generator.manual_seed(seed)
            self.network = self.build()
        if patch < self.stride or patch % self.stride:
            raise ConfigError(f"patch: must be a multiple of {self.stride} pixels, got {patch}")
        if weights is not None:
            source = f"weights {str(weights)!r}"
            load_strictly(self, read_state(weights), source=source)
        self.freeze()

    @abstractmethod
    def build(self) -> torch.nn.Module:
        """Build the network; torch's generator is seeded."""

    @abstractmethod
    def loss(self, image: Tensor) -> Tensor:
        """Compute what is minimised.

        Args:
            image: ``(B, 3, patch, patch)`` in [0, 1].
        """

    def settings(self) -> Recipe:
        """Say which network it is, which its weights alone do not."""
        return {"seed": self.seed}

    def lessons(self) -> Recipe:
        """Describe what it is trained to do."""
        return self.settings() | {"steps": self.steps, "patch": self.patch}

    def fit(self, photographs: Sequence[Path], name: str) -> None:
        """Train it.

        Args:
            photographs: Files; of many some are taken.
            name: What it is called, for the log.

        Raises:
            DataError: If none is as large as a patch.
        """
        started = time.monotonic()
        generator = torch.Generator().manual_seed(self.seed)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            patches = self._patches(photographs, generator)
            with torch.random.fork_rng(devices=()), torch.inference_mode(False):
                self._train(patches, generator)
            self.freeze()
            shown = patches[:64]
            with torch.inference_mode():
                error = (self.draw(shown).clamp(0, 1) - shown).square().mean()
        finally:
            torch.set_num_threads(threads)
        logger.info(
            "%s: trained on %d patches of photographs in %.0f s, %.1f dB on them",
            name,
            len(patches),
            time.monotonic() - started,
            -10 * float(torch.log10(error)),
        )

    def _train(self, patches: Tensor, generator: torch.Generator) -> None:
        self.requires_grad_(True).train()
        optimizer = torch.optim.Adam(self.network.parameters(), lr=_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        with torch.enable_grad():
            for _ in range(self.steps):
                chosen = torch.randint(len(patches), (_BATCH,), generator=generator)
                loss = self.loss(patches[chosen])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimizer.step()
                schedule.step()

    def _patches(self, photographs: Sequence[Path], generator: torch.Generator) -> Tensor:
        """Cut patches at random places of some photographs, ``(N, 3, patch, patch)`` in [0, 1]."""
        patches = []
        for number in torch.randperm(len(photographs), generator=generator).tolist():
            image = decode(photographs[number])
            rows, columns = (side - self.patch + 1 for side in image.shape[-2:])
            if min(rows, columns) < 1:
                continue
            for _ in range(_PATCHES_EACH):
                top = int(torch.randint(rows, (), generator=generator))
                left = int(torch.randint(columns, (), generator=generator))
                patches.append(image[:, top : top + self.patch, left : left + self.patch])
            if len(patches) == _PHOTOGRAPHS * _PATCHES_EACH:
                break
        if not patches:
            raise DataError(
                f"none of {len(photographs)} photographs has {self.patch} x {self.patch} pixels, "
                "of which patches are cut to train a reconstructor; give it a smaller patch"
            )
        return torch.stack(patches).float() / 255


def write_weights(reconstructor: Reconstructor, file: Path, made_of: str) -> None:
    """Keep the weights of what was trained.

    Args:
        reconstructor: What was trained.
        file: A ``.safetensors`` file.
        made_of: What it was trained on, and how.
    """
    with writing(file) as partial:
        save_file(reconstructor.state_dict(), partial, {_MADE_OF: made_of})


def note_of_weights(file: Path) -> str | None:
    """Read what weights were trained on, and how.

    Args:
        file: A file that may not be there.

    Returns:
        What was given to `write_weights`, empty where another program wrote the file; None where it
        is missing or damaged.
    """
    try:
        with safe_open(file, framework="pt") as found:
            return str((found.metadata() or {}).get(_MADE_OF, ""))
    except (OSError, SafetensorError):
        return None
