"""What a reader of a study has to keep in mind."""

from collections.abc import Iterator
from itertools import combinations
from typing import Final

import pandas as pd

from dfl.data.checks.shortcuts import find_shortcuts
from dfl.data.manifest.manifest import Manifest
from dfl.errors import named
from dfl.heads.estimators.reductions import StoredEncoder
from dfl.report.study.content import UNMATCHED
from dfl.study.analysis.estimates import Estimator
from dfl.study.analysis.unseen import matched_training_sets
from dfl.study.run.study import Study
from dfl.types import FAKE, REAL, UNKNOWN

_FEW: Final = 20  # validation images of a dataset below which a choice is shaky
_FEW_GROUPS: Final = 20  # where 95 % intervals of a mean hold 93 % still; of 8 groups 91, of 4 86


def notes(study: Study, estimator: Estimator, manifest: Manifest) -> list[str]:
    """List the caveats of a study, one or two sentences each.

    Args:
        study: What was tried on which images.
        estimator: The results.
        manifest: The images.
    """
    several = len(estimator.seeds) > 1
    covered = " and seeds" if several else ""
    general = [
        f"Intervals hold 95 % of bootstrap replicates that resample groups of images{covered}; "
        "they do not cover images of another kind than those tested.",
        "Head, hyper-parameters, threshold and calibration were chosen on validation images; what "
        "stands at the top of a ranking by test images was not chosen.",
    ]
    if not several:
        general.append(
            "One seed: intervals do not hold what another split or another start would change."
        )
    frame = next(iter(study.frames.values()))
    return [
        *general,
        *_shortcuts(manifest),
        *_validation(study),
        *_tests(frame),
        *_shared(frame),
        *_trained_before(study),
        *_aligned(study),
        *_unmatched(study),
        *_left_out(study),
    ]


def _shortcuts(manifest: Manifest) -> Iterator[str]:
    """Name the datasets whose classes can be told apart without a look at the pixels."""
    for found in find_shortcuts(manifest):
        yield (
            f"{found.dataset}: the {found.name} of a file alone tells real from fake (real: "
            f"{found.real}; fake: {found.fake}), so its scores may rest on that."
        )


def _validation(study: Study) -> Iterator[str]:
    """Name the datasets with few validation images, in the seed that has the fewest."""
    frame = next(iter(study.frames.values()))
    for name in frame["dataset"].unique():
        counts = []
        for own in study.frames.values():
            rows = own[(own["dataset"] == name) & (own["split"] == "val")]
            counts.append((len(rows), rows["label"].nunique()))
        fewest = min(count for count, _ in counts)
        if fewest == 0:
            yield (
                f"{name} has no validation images: a head trained on it alone is the first "
                "candidate, with threshold 0 and no calibration."
            )
        elif min(classes for _, classes in counts) < 2:
            yield f"{name} has validation images of one class only: nothing can be chosen on them."
        elif fewest < _FEW:
            yield (
                f"{name} has only {fewest} validation images: what is chosen on them, threshold "
                "and calibration above all, is uncertain."
            )


def _tests(frame: pd.DataFrame) -> Iterator[str]:
    """Name what the tests of a dataset cannot tell."""
    test = frame[frame["split"] == "test"]
    for name in test["dataset"].unique():
        rows = test[test["dataset"] == name]
        if rows["label"].nunique() < 2:
            yield (
                f"{name} has test images of one class only: accuracy and calibration error can be "
                "computed, ranking metrics and rates cannot."
            )
        groups = rows["group"].nunique()
        upper = 1 - 0.05 ** (1 / groups)
        if upper > 0.05:
            yield (
                f"{name} is tested on {groups} groups of images: a detector without an error there "
                f"may still be wrong on {upper:.0%} of such groups, although its interval has no "
                "width" + (", and other intervals are too narrow." if groups < _FEW_GROUPS else ".")
            )


def _shared(frame: pd.DataFrame) -> Iterator[str]:
    """Name datasets that share real images: a head trained on one knows the other's reals."""
    real = frame[frame["label"] == REAL]
    paths = {str(name): set(own["path"]) for name, own in real.groupby("dataset", sort=False)}
    for first, second in combinations(paths, 2):
        if common := len(paths[first] & paths[second]):
            yield (
                f"{first} and {second} share {common} real images: trained on one, a detector is "
                "tested on new fakes of the other, but on real images of a kind that it knows."
            )


def _aligned(study: Study) -> Iterator[str]:
    """Warn of reconstructions that are learnt from as they come."""
    frame = study.frame[study.frame["split"] == "train"]
    photographs = set(frame["group"][frame["label"] == REAL])
    fakes = frame[(frame["label"] == FAKE) & frame["group"].isin(photographs)]
    if len(fakes) and not study.draws:
        yield (
            f"{fakes['path'].nunique()} generated images that are learnt from are of a group with "
            f"photographs, as reconstructions are ({named(list(fakes['generator'].unique()))}). A "
            "head may learn no more than how sharp they are beside those, and take other sharp or "
            "smooth photographs for fakes; draws, the same for a group, are against that."
        )


def _trained_before(study: Study) -> Iterator[str]:
    """Name reductions that came trained: what they know, no split of this study has decided."""
    for name, pipelines in study.reductions.items():
        if any(isinstance(step, StoredEncoder) for p in pipelines for _, step in p.steps):
            yield (
                f"The reduction {name} was trained before this study: images that it has learnt "
                "from may be among those tested, and datasets that count as unseen may not be "
                "unseen by it."
            )


def _unmatched(study: Study) -> Iterator[str]:
    """Name the datasets whose numbers may rest on more than on who made an image."""
    known = study.frame[study.frame["label"] != UNKNOWN]
    classes = known.groupby("dataset", sort=False)["label"].nunique()
    names = [str(name) for name, count in classes.items() if count == 2]
    if unmatched := [name for name in names if name not in study.matched]:
        yield (
            f"{named(unmatched)}: not known to be matched; {UNMATCHED}, so that a number says "
            "less there of images of another kind."
        )


def _left_out(study: Study) -> Iterator[str]:
    """Say what leaving families and sources out has cost, and where it could not be done."""
    leaves_out = any(each.left_out is not None for each in study.training_sets.values())
    if leaves_out and not matched_training_sets(study):
        yield (
            "No dataset that is known to be matched was left out with its family and source, so "
            "that no number here stands for new generators among new photographs: declare such "
            "datasets (matched), and train on leave_one_family_and_source_out."
        )
    learnt = study.frame["split"].isin(("train", "val")).to_numpy()
    for name, each in study.training_sets.items():
        if each.left_out is not None:
            known = (study.frame["label"] != UNKNOWN).to_numpy() & learnt
            if dropped := int((known & ~each.left_out & ~each.rows).sum()):
                yield (
                    f"{name}: {dropped} images share a prompt or a photograph with what was left "
                    "out, and were not trained on."
                )
    if not study.nested:
        return
    for kind, label, what in (("family", FAKE, "fakes"), ("source", REAL, "photographs")):
        for name, each in study.training_sets.items():
            rows = study.frame[each.rows & (study.frame["label"] == label).to_numpy()]
            if rows[kind].nunique() < 2:
                yield (
                    f"{name}: all {what} are of one {kind}, so that validation is on other groups "
                    "of them, not on new kinds; its choices and its threshold may not hold there."
                )
