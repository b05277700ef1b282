"""A stand-in for text towers, and features around its vectors, for the tests of text heads."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import dfl.backbones.text
from dfl.backbones.text import TextEmbeddings

SCALE = 20.0
REAL_PROMPTS = ["a photo", "a snapshot"]
FAKE_PROMPTS = ["a render", "a fake", "a GAN's image"]


def vector_of(prompt: str, width: int) -> npt.NDArray[np.float32]:
    """Give a unit vector that the words alone decide."""
    seed = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=width)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def stand_in(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Let every text model give vectors of one width, without weights."""

    def encode(
        prompts: Sequence[str], *, model: str, pretrained: object, weights: str | Path | None
    ) -> TextEmbeddings:
        return TextEmbeddings(np.stack([vector_of(text, width) for text in prompts]), SCALE)

    monkeypatch.setattr(dfl.backbones.text, "encode_text", encode)


def images(
    width: int, count: int = 80, seed: int = 0
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Overlapping classes that lie a little towards their prompts, of any length."""
    rng = np.random.default_rng(seed)
    label = (np.arange(count) % 2).astype(np.int64)
    towards = np.stack([vector_of("a photo", width), vector_of("a render", width)])
    features = 0.5 * towards[label] + rng.normal(size=(count, width)) + 0.6
    return (features * rng.uniform(1, 9, (count, 1))).astype(np.float32), label
