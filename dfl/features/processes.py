"""What several processes need in order to share one extraction, which the first of them plans.

Its fingerprint stands for the features of all; so another process that saw other images or weights,
or wrote elsewhere, would spoil the result without anybody noticing.
"""

import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Final, TypeVar, cast

import lightning.pytorch as pl
import numpy as np

from dfl.data.containers.content import content_hash
from dfl.data.manifest.manifest import Manifest
from dfl.errors import DflError, FeatureError
from dfl.features.hashing import rows_fingerprint
from dfl.files import VISIBLE_S, appears
from dfl.processes import gathered
from dfl.recipe import Plain, fingerprint_of
from dfl.types import FeatureSpec, spec_to_plain

logger = logging.getLogger(__name__)

T = TypeVar("T")

_VERSIONS: Final = "versions of dfl and of what it runs on"
_RUN: Final = "precision or engine"
_ADVICE: Final = {
    _VERSIONS: "install the same on all machines",
    _RUN: "give --precision and --engine by name, not auto",
    "weights, layers or preprocessing of the backbones": (
        "give all the same weights: FILE; random ones (pretrained: false) are others in each"
    ),
    "crop or transforms": "start all processes with the same settings",
    "rows of the manifest": "let all machines read the same manifest and splits",
    "content of the images": "give all machines the same images",
}
"""By fact, in the order of `facts_of`, what to do where processes differ in it."""


def facts_of(
    specs: Sequence[FeatureSpec],
    images: Manifest,
    rows: Manifest,
    *,
    views: Plain,
    execution: Plain,
    versions: Plain = None,
    sample: int = 64,
) -> dict[str, str]:
    """Say what decides the features that this process would make.

    Args:
        specs: The layers of each target.
        images: The distinct images.
        rows: All rows.
        views: The descriptions of the views.
        execution: How the backbones are run.
        versions: What runs them, by package.
        sample: So many images, spread over all, are compared by content; all of them are read by
            the first process alone.

    Returns:
        By fact, a text that is equal in two processes exactly where the fact is.
    """
    layers: Plain = [spec_to_plain(spec) for spec in specs]
    values = (
        json.dumps(versions, sort_keys=True),
        json.dumps(execution, sort_keys=True),
        fingerprint_of(layers),
        fingerprint_of(views),
        rows_fingerprint(rows),
        _sample_fingerprint(images, sample),
    )
    return dict(zip(_ADVICE, values, strict=True))


def check_alike(trainer: pl.Trainer, facts: Mapping[str, str], *, device: str = "") -> None:
    """Compare the facts of all processes; say where they run on devices that may round otherwise.

    Args:
        trainer: The trainer of this process; every process has to call this.
        facts: Those of this process.
        device: The model of its device.

    Raises:
        FeatureError: On every process alike, if they differ.
    """
    everywhere = gathered((socket.gethostname(), device, dict(facts)))
    first_host, _, first = everywhere[0]
    for rank, (host, _, own) in enumerate(everywhere):
        fact = next((fact for fact in _ADVICE if own[fact] != first[fact]), None)
        if fact is not None:
            detail = f" ({first[fact]} and {own[fact]})" if fact in (_VERSIONS, _RUN) else ""
            raise FeatureError(
                f"process 0 on {first_host} and process {rank} on {host} differ in the "
                f"{fact}{detail}, so they would make different features; {_ADVICE[fact]}"
            )
    devices = list(dict.fromkeys(device for _, device, _ in everywhere))
    if len(devices) > 1 and trainer.is_global_zero:
        logger.warning(
            "the processes run on %s, which may round differently: the last digits of the features "
            "depend on which of them sees an image; one model of GPU makes the same ones again",
            " and ".join(devices),
        )


def check_visible(
    places: Mapping[Path, Path],
    *,
    patience_s: float = VISIBLE_S,
    poll_s: float = 0.5,
) -> None:
    """Make sure that all processes see what the first one has written; all have to call this.

    Args:
        places: By feature folder, a file that the first process has just made for it.
        patience_s: How long a new file may take to appear on other machines, in seconds.
        poll_s: Seconds between two looks.

    Raises:
        FeatureError: On every process alike, if one of them does not see one of the files.
    """
    unseen = next(
        (
            str(out)
            for out, file in places.items()
            if not appears(file, patience_s=patience_s, poll_s=poll_s)
        ),
        None,
    )
    for rank, (host, out) in enumerate(gathered((socket.gethostname(), unseen))):
        if out is not None:
            raise FeatureError(
                f"{out}: process {rank} on {host} does not see what process 0 writes there; "
                "OUT has to be on a file system that all machines see"
            )


def _sample_fingerprint(images: Manifest, sample: int) -> str:
    count = min(sample, len(images))
    positions = np.linspace(0, len(images) - 1, count).astype(np.int64)
    contents: list[Plain] = []
    for path in images.frame["path"].iloc[positions]:
        try:
            contents.append(content_hash(images.resolve(path)))
        except (OSError, DflError) as err:  # told to all, instead of letting them wait
            contents.append(type(err).__name__)
    return fingerprint_of(contents)


def on_every_process(
    trainer: pl.Trainer, work: Callable[[], T], *, news_s: float = 20.0
) -> list[T]:
    """Do something on all processes at once, and give each of them what all have got.

    It may take as long as it takes: they tell each other now and then that they are at it, so that
    none of them gives up.

    Args:
        trainer: The trainer of this process; every process has to call this.
        work: What this one does.
        news_s: Seconds between two signs of life, far below the half hour that a collective waits
            by default.

    Returns:
        What each of them returned, by rank.

    Raises:
        Exception: What the first of those that failed raised, on all of them; without it the
            others would wait for ever.
    """
    if trainer.world_size == 1:
        return [work()]
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as err:
            future.set_exception(err)

    # a daemon does not outlive an interrupted program
    threading.Thread(target=run, daemon=True).start()
    done = False
    while not done:
        wait([future], news_s)
        done = all(gathered(future.done()))
    error = future.exception()
    outcomes = gathered((None if error else future.result(), error))
    for _, failed in outcomes:
        if failed is not None:
            raise failed
    return [cast(T, result) for result, _ in outcomes]


def on_first_process(trainer: pl.Trainer, work: Callable[[], T]) -> T:
    """Do something on the first process, and give all of them its result; see `on_every_process`.

    Args:
        trainer: The trainer of this process; every process has to call this.
        work: What to do; only the first process does.

    Returns:
        What `work` returned there.

    Raises:
        Exception: What `work` raised there.
    """
    own = work if trainer.is_global_zero else _nothing
    return cast(T, on_every_process(trainer, own)[0])


def _nothing() -> None:
    return None
