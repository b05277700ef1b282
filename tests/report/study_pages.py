"""A made-up study to show: all that a page can hold, or next to nothing."""

from io import BytesIO

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from dfl.evaluation import METRICS
from dfl.report.study.content import HardImage, StudyPage

FEATURES = {
    "clip+dino+efficientnet": 0.93,
    "clip+dino": 0.925,
    "clip": 0.915,
    "clip+efficientnet": 0.91,
    "dino": 0.86,
    "dino+efficientnet": 0.855,
    "efficientnet": 0.78,
    "resnet50": 0.82,
}
FINE_TUNED = "resnet50"
HEADS = {
    "rbf_svm": 0.02,
    "linear_probe": 0.01,
    "lda": 0.005,
    "logistic": 0.0,
    "gradient_boosting": -0.03,
    "knn": -0.045,
    "random_forest": -0.05,
    "naive_bayes": -0.12,
    "decision_tree": -0.16,
}
SETS = ["progan", "glid3xl", "ldm", "pix2pix", "combined"]


def full_page(*, seed=0):
    """A study as large as a real one, with everything in it."""
    rng = np.random.default_rng(seed)
    return StudyPage(
        title="Which backbone finds generated images?",
        subtitle="Seven combinations of three frozen backbones, three reductions and nine "
        "heads on four pairs of real and generated images, each tested on all others.",
        metric="accuracy_at_val_threshold",
        train_set="combined",
        created="2026-11-01",
        facts=[
            ("Images", "4,000 (2,000 real, 2,000 fake)"),
            ("Cells", "945, and 3 that failed"),
            ("Forward passes made", "12,000"),
            ("Forward passes saved", "3,768,000"),
            ("Seeds", "0, 1, 2"),
            ("Extraction", "6 min 12 s"),
            ("Cells took", "11 min 40 s on 2 cores"),
            ("Versions", "dfl 0.1.0, torch 2.14.1, scikit-learn 1.9.1"),
        ],
        choices=_choices(),
        unseen=_unseen(),
        leaders=_leaders(rng),
        models=_models(rng),
        matrices={name: _matrix(rng, own) for name, own in [("clip \u00b7 rbf_svm", 0.93)]}
        | {"all but one: clip \u00b7 rbf_svm": _matrix(rng, 0.85, seeds=True)},
        effects=_effects(rng),
        claims=_claims(),
        comparisons=_comparisons(),
        metrics=_metrics(rng),
        roc={
            name: _roc(rng, shift)
            for name, shift in zip(SETS, (2.6, 2.1, 1.7, 1.2, 1.9), strict=True)
        },
        hardest=[_hard(rng, index) for index in range(14)],
        failures=pd.DataFrame(
            [
                (
                    "clip \u00b7 none \u00b7 lda \u00b7 pix2pix \u00b7 seed 1",
                    "ValueError: 3 images of one class, LDA needs two; add images",
                ),
                (
                    "dino \u00b7 none \u00b7 lda \u00b7 pix2pix \u00b7 seed 1",
                    "ValueError: 3 images of one class, LDA needs two; add images",
                ),
                ("dino \u00b7 pca \u00b7 knn \u00b7 ldm \u00b7 seed 0", "MemoryError"),
            ],
            columns=["cell", "cause"],
        ),
        notes=[
            "ldm has 40 validation images, so its threshold is uncertain by some 8 points.",
            "holdout has fakes only: what needs both classes is n/a there.",
        ],
        commands=[
            "pip install -e .[demo]",
            "dfl study --config configs/study/demo.yaml --seeds '[0, 1, 2]'",
        ],
        config="pairs:\n- name: progan\n  fake: <folder>\n" + "heads: [rbf_svm, lda]\n" * 30,
    )


def bare_page(**changes):
    """A study of which nothing came: every table is empty."""
    empty = pd.DataFrame()
    tables = dict.fromkeys(
        [
            "choices",
            "unseen",
            "leaders",
            "models",
            "effects",
            "claims",
            "comparisons",
            "metrics",
            "failures",
        ],
        empty,
    )
    words = {
        "title": "Nothing",
        "subtitle": "",
        "metric": "accuracy_at_val_threshold",
        "train_set": "combined",
    }
    rest = {
        "created": "2026-11-01",
        "facts": [],
        "matrices": {},
        "roc": {},
        "hardest": [],
        "notes": [],
        "commands": [],
        "config": "",
    }
    return StudyPage(**(words | tables | rest | changes))


def _choices():
    return pd.DataFrame(
        [
            (
                "Highest accuracy over all test sets",
                "clip+dino",
                None,
                "rbf_svm",
                "combined",
                "blur+jpeg",
                0.951,
                0.934,
                0.912,
                0.952,
                "It has the highest validation accuracy of 945 configurations; 11 others lie "
                "within its interval, and this one is the cheapest of them to run.",
            ),
            (
                "Highest accuracy on the worst test set",
                "clip+dino+efficientnet",
                "pca",
                "lda",
                "combined",
                "jpeg",
                0.94,
                0.921,
                0.895,
                0.94,
                "It loses least on the dataset it is worst at (pix2pix).",
            ),
            (
                "Best with a single backbone",
                "clip",
                None,
                "linear_probe",
                "combined",
                "none",
                0.935,
                0.915,
                0.89,
                0.935,
                "",
            ),
        ],
        columns=[
            "criterion",
            "features",
            "reduction",
            "head",
            "train_set",
            "train_condition",
            "val",
            "test",
            "low",
            "high",
            "why",
        ],
    )


def _models(rng):
    rows = []
    for features, level in FEATURES.items():
        own = {"cross-entropy": 0.01} if features == FINE_TUNED else HEADS
        chosen = list(own)[len(features) % min(3, len(own))]  # not always the best on test
        for head, shift in own.items():
            value = min(level + shift + rng.normal(0, 0.008), 0.985)
            ends = value - 0.022, min(value + 0.02, 1)
            rows.append((features, head, value, *ends, head == chosen))
    return pd.DataFrame(rows, columns=["features", "head", "value", "low", "high", "chosen"])


def _unseen():
    rows = [
        ("dino_vit.block5", "lda", 0.713, 0.412, True),
        ("clip.pooled", "rbf_svm", 0.58, 1, False),
    ]
    return pd.DataFrame(
        {
            "features": features,
            "reduction": "none",
            "head": head,
            "train_condition": "none",
            "value": value,
            "low": value - 0.1,
            "high": value + 0.1,
            "worst_set": "food",
            "worst": value - 0.2,
            "fpr": fpr,
            "fpr_source": "press photographs",
            "tpr": 0.31,
            "family": 0.965,
            "val": value + 0.05,
            "chosen": chosen,
        }
        for features, head, value, fpr, chosen in rows
    )


def _leaders(rng):
    rows = []
    for index in range(61):
        value = 0.938 - 0.0035 * index + rng.normal(0, 0.0005)
        kind = {3: "text", 20: "fine-tuned"}.get(index, "frozen")
        tuned = kind == "fine-tuned"
        rows.append(
            (
                FINE_TUNED if tuned else list(FEATURES)[index % 7],
                "none" if tuned else [None, "pca", "autoencoder"][index % 3],
                "cross-entropy" if tuned else list(HEADS)[index % 9],
                kind,
                value,
                value - 0.02,
                value + 0.018,
                value + 0.01,
            )
        )
    return pd.DataFrame(
        rows, columns=["features", "reduction", "head", "kind", "value", "low", "high", "val"]
    )


def _matrix(rng, own, seeds=False):
    rows = []
    for train in SETS:
        values = []
        for test in SETS[:-1]:
            value = own if train in (test, "combined") else rng.uniform(0.48, 0.85)
            value = (
                np.nan
                if seeds and (train, test) == ("ldm", "progan")
                else value + rng.normal(0, 0.01)
            )
            values.append(value)
            rows.append((train, test, value, value - 0.03, value + 0.03))
        for name, value in (
            ("pooled", np.nanmean(values)),
            ("macro", np.nanmean(values)),
            ("worst", np.nanmin(values)),
        ):
            rows.append((train, name, value, value - 0.015, value + 0.015))
    return pd.DataFrame(rows, columns=["train_set", "test_set", "value", "low", "high"])


def _effects(rng):
    seen = "on the datasets trained on"
    levels = {
        f"features, {seen}": [*FEATURES][:7],
        f"reduction, {seen}": ["none", "pca", "autoencoder"],
        f"head, {seen}": [*HEADS],
        f"condition, {seen}": ["none", "blur", "jpeg", "jitter", "blur + jitter → none"],
        "train set, on all datasets": SETS,
        "test condition, on all datasets": ["none"],
    }
    rows = []
    for axis, names in levels.items():
        values = [FEATURES.get(name, 0.84 + HEADS.get(name, rng.normal(0, 0.02))) for name in names]
        for name, value in zip(names, values, strict=True):
            behind = value - max(values) if value < max(values) else np.nan
            rows.append(
                {"axis": axis, "level": name, "value": value}
                | {"low": value - 0.012, "high": value + 0.012, "n_cells": 945 // len(names)}
                | {"difference": behind, "diff_low": behind - 0.006, "diff_high": behind + 0.006}
            )
    return pd.DataFrame(rows)


def _claims():
    return pd.DataFrame(
        [
            (
                "CLIP is the best single backbone",
                "held",
                "91.5 % against 86.0 % for dino, the next best, over 135 cells each.",
                0.055,
                0.041,
                0.069,
            ),
            (
                "SVM, linear probe and LDA are the three best heads",
                "undecided",
                "The third (lda) and the fourth (logistic) lie 0.5 points apart.",
                0.005,
                -0.004,
                0.013,
            ),
            (
                "The autoencoder beats PCA",
                "did not hold",
                "83.1 % against 85.7 % with the same width.",
                -0.026,
                -0.038,
                -0.013,
            ),
            (
                "Blur in training hurts",
                "not tested",
                "This study has no blurred condition.",
                np.nan,
                np.nan,
                np.nan,
            ),
        ],
        columns=["statement", "verdict", "evidence", "difference", "low", "high"],
    )


def _comparisons():
    a = "clip+dino · rbf_svm"
    rows = [
        (a, "clip · linear_probe", "macro", 0.019, 0.006, 0.031, 0.004, 0.008, 0.0006),
        (a, "resnet50 · cross-entropy", "macro", 0.11, 0.084, 0.138, 0.0, 0.0, 1e-9),
        (
            a,
            "clip+dino+efficientnet · pca · lda",
            "macro",
            -0.004,
            -0.021,
            0.014,
            0.63,
            0.63,
            np.nan,
        ),
    ]
    columns = ["a", "b", "test_set", "difference", "low", "high", "p", "p_holm", "mcnemar_p"]
    return pd.DataFrame(rows, columns=columns)


def _metrics(rng):
    rows = []
    for configuration in (
        "clip+dino \u00b7 none \u00b7 rbf_svm",
        "clip+dino+efficientnet \u00b7 pca \u00b7 lda",
    ):
        sets = dict.fromkeys(SETS[:-1], (500, 500)) | {
            "progan / biggan": (500, 120),
            "holdout": (0, 80),
            "pooled": (2000, 2080),
            "macro": (np.nan, np.nan),
            "worst": (np.nan, np.nan),
        }
        for test_set, (n_real, n_fake) in sets.items():
            row = {
                "configuration": configuration,
                "test_set": test_set,
                "n_real": n_real,
                "n_fake": n_fake,
            }
            for name in METRICS:
                value = (
                    rng.uniform(0.02, 0.1)
                    if name in ("eer", "calibration_error")
                    else rng.uniform(0.8, 0.98)
                )
                if n_real == 0 and not name.startswith("accuracy"):
                    value = np.nan
                row |= {name: value, f"{name}_low": value - 0.02, f"{name}_high": value + 0.02}
            rows.append(row)
    return pd.DataFrame(rows)


def _roc(rng, shift):
    from sklearn.metrics import roc_curve

    label = np.repeat([0, 1], 400)
    fpr, tpr, _ = roc_curve(label, rng.normal(size=800) + shift * label)
    return fpr, tpr


def _hard(rng, index):
    image = Image.new(
        "RGB", (160, 90 + 10 * (index % 8)), tuple(int(v) for v in rng.integers(40, 220, 3))
    )
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, r = rng.integers(0, 150), rng.integers(0, 90), rng.integers(6, 40)
        draw.ellipse(
            [x - r, y - r, x + r, y + r], fill=tuple(int(v) for v in rng.integers(0, 255, 3))
        )
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=80)
    fake = index % 2 == 0
    dataset = SETS[index % 4]
    return HardImage(
        caption=f"{dataset}/{'fake' if fake else 'real'}/{index:05d}.png",
        label="fake" if fake else "real",
        verdict="real" if fake else "fake",
        score=float((-1 if fake else 1) * (4.2 - 0.25 * index)),
        dataset=dataset,
        generator=dataset if fake else "real",
        jpeg=buffer.getvalue(),
    )
