"""Matched datasets: both classes come from one pipeline and show the same subjects.

On any other dataset a detector is praised for telling subjects or pipelines apart.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from dfl.data.checks.shortcuts import find_shortcuts
from dfl.data.images.crops import Squash
from dfl.data.images.decode import decode
from dfl.data.manifest.manifest import Manifest
from dfl.errors import ImageError
from dfl.processes import cores
from dfl.threads import in_threads
from dfl.types import FAKE, REAL

MOST_IMAGES: Final = 200
"""How many images of each class of a dataset are looked at."""

FEWEST_IMAGES: Final = 20
"""Below so many of a class nothing can be told."""

HINT: Final = 0.6
"""The AUC up to which content is no more than a hint: a dataset of which it is surely above is not
matched."""

GIVEN_AWAY: Final = 0.8
"""The AUC from which content is most of an answer: a dataset of which it may be above is not called
matched either, since its images are too few to tell."""

SIDE: Final = 32
"""Side of the thumbnails, in pixels: small enough that what a decoder leaves behind is gone."""

FOLDS: Final = 5
"""In so many parts groups are divided."""

_PAIRED: Final = 0.9  # of each class, in groups that hold both
_CELLS: Final = 4  # rows and columns of the coarse layout
_REPEATS: Final = 5
_RESAMPLES: Final = 1000
_LEVEL: Final = 0.05  # of each end of the interval
_THREADS: Final = 8


@dataclass(frozen=True)
class Match:
    """Whether the classes of a dataset are matched.

    Attributes:
        dataset: The dataset, which has both classes.
        matched: Whether neither files nor content tell its classes apart; False also where its
            images are too few to tell.
        why: The reason, in one line.
    """

    dataset: str
    matched: bool
    why: str


def find_matched(manifest: Manifest, *, most: int = MOST_IMAGES, seed: int = 0) -> list[Match]:
    """Judge for each dataset whether its classes come from one pipeline and show the same subjects.

    They come from one pipeline, as far as a cheap look can tell, if no property of the files alone
    gives the class away (`find_shortcuts`). They show the same subjects if nearly all images share
    their group with one of the other class, as a photograph and its reconstruction do; what differs
    then is what the generator did. Elsewhere colours and layout of small thumbnails are asked, by
    `content_auc`, which has an interval of 90 %:

    - its lower end is above ``HINT``: other subjects, not matched;
    - its upper end is below ``GIVEN_AWAY``: matched;
    - neither: it cannot be told with so few images, which is not matched.

    So a dataset is never called matched since it is small. An image that cannot be decoded is
    passed over: whoever decodes all of them says so.

    Args:
        manifest: The images.
        most: How many images of each class of a dataset are looked at; which ones depends on
            their paths and the seed alone.
        seed: Decides which images, the folds and the resamples.

    Returns:
        One judgement for each dataset with both classes, in the order of the datasets.
    """
    shortcuts: dict[str, list[str]] = {}
    for found in find_shortcuts(manifest):
        shortcuts.setdefault(found.dataset, []).append(str(found))
    known = manifest.frame[manifest.frame["label"].isin([REAL, FAKE])]
    return [
        _judge(str(name), manifest, rows, shortcuts.get(str(name), []), most, seed)
        for name, rows in known.groupby("dataset", sort=False)
        if rows["label"].nunique() == 2
    ]


def content_auc(
    content: NDArray[np.float64], label: NDArray[np.int64], group: NDArray[Any], *, seed: int = 0
) -> tuple[float, float, float]:
    """Compute how well content tells two classes apart.

    Shrinkage LDA on standardised values is fitted on four fifths of the groups and scores the rest,
    in several divisions. Only images of one fold are compared, since folds have offsets of their
    own.

    Args:
        content: What is known of each image, shape ``(N, D)``.
        label: ``REAL`` or ``FAKE``, shape ``(N,)``; images of both classes are in several groups.
        group: Images of one group are in one fold, and are resampled together, shape ``(N,)``.
        seed: Decides folds and resamples.

    Returns:
        The AUC, and the ends of its interval of 90 % (a bootstrap of the groups).
    """
    is_fake = label == FAKE
    right = np.zeros((np.sum(~is_fake), np.sum(is_fake)))
    compared = np.zeros_like(right)
    for repeat in range(_REPEATS):
        folds = GroupKFold(FOLDS, shuffle=True, random_state=seed + repeat)
        for train, test in folds.split(content, groups=group):
            if len(np.unique(label[train])) < 2:
                continue
            lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
            head = make_pipeline(StandardScaler(), lda).fit(content[train], label[train])
            score = np.full(len(label), np.nan)
            score[test] = head.decision_function(content[test])
            real, fake = score[~is_fake][:, None], score[is_fake][None]
            right += (fake > real) + 0.5 * (fake == real)
            compared += ~np.isnan(real) & ~np.isnan(fake)
    code, names = pd.factorize(group)
    drawn = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=_RESAMPLES
    )
    weight = np.vstack([np.ones_like(code), drawn[:, code]]).astype(np.float64)
    real_weight, fake_weight = weight[:, ~is_fake], weight[:, is_fake]
    total = ((real_weight @ compared) * fake_weight).sum(axis=1)
    auc = ((real_weight @ right) * fake_weight).sum(axis=1) / np.maximum(total, 1)
    low, high = np.quantile(auc[1:][total[1:] > 0], [_LEVEL, 1 - _LEVEL])
    return float(auc[0]), float(low), float(high)


def thumbnail_content(image: Tensor) -> NDArray[np.float64]:
    """Describe colours and coarse layout of an image.

    Args:
        image: RGB, shape ``(3, H, W)``, uint8.

    Returns:
        Of its thumbnail of ``SIDE`` pixels: mean and standard deviation of the three channels,
        their three correlations (0 for a channel of one value), and the brightness of 4x4 cells
        less their mean; shape ``(25,)``.
    """
    pixels = Squash(SIDE)(image).numpy().astype(np.float64)
    colours = pixels.reshape(3, -1)
    spread = colours.std(axis=1)
    covariance = np.cov(colours, bias=True)
    scale = np.outer(spread, spread)
    correlation = np.divide(covariance, scale, out=np.zeros((3, 3)), where=scale > 0)
    cell = SIDE // _CELLS
    layout = pixels.mean(axis=0).reshape(_CELLS, cell, _CELLS, cell).mean(axis=(1, 3))
    return np.concatenate(
        [
            colours.mean(axis=1),
            spread,
            correlation[np.triu_indices(3, k=1)],
            (layout - layout.mean()).ravel(),
        ]
    )


def _judge(
    name: str, manifest: Manifest, rows: pd.DataFrame, shortcuts: list[str], most: int, seed: int
) -> Match:
    if shortcuts:
        tell = "tells" if len(shortcuts) == 1 else "tell"
        return Match(name, False, f"{' and '.join(shortcuts)} {tell} the classes apart")
    pairs, paired = _shared_groups(rows)
    if pairs >= FEWEST_IMAGES and paired >= _PAIRED:
        return Match(name, True, f"{paired:.0%} of a class share their group with the other class")
    chosen = [_chosen(rows[rows["label"] == label], most, seed) for label in (REAL, FAKE)]
    rows = pd.concat(chosen, ignore_index=True)
    contents = list(
        in_threads(
            lambda path: _content(manifest, path),
            rows["path"],
            threads=min(_THREADS, cores()),  # decoding takes a core
            what=f"look at the subjects of {name}",
            total=len(rows),
        )
    )
    rows = rows[[each is not None for each in contents]]
    fewest = min(rows["label"].eq(label).sum() for label in (REAL, FAKE))
    if fewest < FEWEST_IMAGES:
        few = f"only {fewest} images of a class can be read" if fewest else "no image of a class"
        return Match(name, False, f"cannot be told: {few}, {FEWEST_IMAGES} are needed")
    groups = rows.groupby("label")["group"].nunique().min()
    if groups < FOLDS:
        return Match(name, False, f"cannot be told: {groups} groups in a class, {FOLDS} are needed")
    auc, low, high = content_auc(
        np.stack([each for each in contents if each is not None]),
        rows["label"].to_numpy(),
        rows["group"].to_numpy(),
        seed=seed,
    )
    said = f"AUC {auc:.2f} ({low:.2f} to {high:.2f})"
    if low > HINT:
        why = f"colours and layout of thumbnails tell the classes apart with {said}"
        return Match(name, False, why)
    if high >= GIVEN_AWAY:
        why = (
            f"cannot be told with {len(rows)} images: colours and layout of thumbnails have {said}"
        )
        return Match(name, False, why)
    why = f"neither files nor colours and layout of thumbnails tell the classes apart: {said}"
    return Match(name, True, why)


def _shared_groups(rows: pd.DataFrame) -> tuple[int, float]:
    """Count the groups that hold both classes, and the share of a class that is in them."""
    is_shared = rows.groupby("group")["label"].transform("nunique") == 2
    shares = is_shared.groupby(rows["label"]).mean()
    return rows.loc[is_shared, "group"].nunique(), float(shares.min())


def _chosen(rows: pd.DataFrame, most: int, seed: int) -> pd.DataFrame:
    """Take the images whose paths have the lowest hashes, which no order of rows changes."""
    digest = [hashlib.sha256(f"{seed}:{path}".encode()).digest() for path in rows["path"]]
    order = sorted(range(len(rows)), key=digest.__getitem__)
    return rows.iloc[order[:most]]


def _content(manifest: Manifest, path: str) -> NDArray[np.float64] | None:
    try:
        return thumbnail_content(decode(manifest.resolve(path)))
    except ImageError:  # whoever decodes all of them says so
        return None
