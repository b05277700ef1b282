"""Real photographs, real generated images, real weights: the figures of the README.

Needs DFL_REAL_DATA, a folder with the sets imagenet, ldm, glid3xl, pix2pix and progan, and
DFL_REAL_WEIGHTS, a folder with clip_vit_b16.safetensors and dinov2_vit_s14_saliency.safetensors;
skipped without them. Run with -s to see the table.
"""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torchvision import transforms

from dfl.cli import main
from dfl.data.manifest.manifest import Manifest
from dfl.data.manifest.splits import Splits, assign_splits
from dfl.evaluation import binary_metrics, read_scores
from dfl.features import FeatureStore, new_store
from tests.conftest import REPOSITORY

DATA, WEIGHTS = (os.environ.get(name) for name in ("DFL_REAL_DATA", "DFL_REAL_WEIGHTS"))
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (DATA and WEIGHTS), reason="set DFL_REAL_DATA and DFL_REAL_WEIGHTS"),
]
SEEDS = range(5)
PAIRS = {
    "ldm": {"real": "imagenet", "fake": {"path": "ldm", "group": "(.+)__"}},
    "glid3xl": {"real": "imagenet", "fake": {"path": "glid3xl", "group": "(.+)__"}},
    "pix2pix": {
        side: {"path": "pix2pix", "group": "(.+)_(?:real|fake)_B"} for side in ("real", "fake")
    },
    "progan": {"real": "progan", "fake": "progan"},
}
BACKBONES = {
    "clip": (
        "dfl.backbones.from_zoo",
        {"name": "clip_vit_b16", "layers": ["pooled", "block8.cls"]},
    ),
    "dinov2": (
        "dfl.backbones.TimmBackbone",
        {"model": "vit_small_patch14_dinov2", "input_size": 224, "layers": ["block8.cls"]},
    ),
}
FILES = {"clip": "clip_vit_b16.safetensors", "dinov2": "dinov2_vit_s14_saliency.safetensors"}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four pairs combined, through both backbones."""
    folder = tmp_path_factory.mktemp("real")
    config = {
        "data": {
            "class_path": "dfl.data.ImageDataModule",
            "init_args": {
                "source": {
                    "class_path": "dfl.data.Pairs",
                    "init_args": {"root": DATA, "pairs": PAIRS},
                },
                "crop": {"class_path": "dfl.data.Resize", "init_args": {"size": 224}},
                "batch_size": 32,
                "num_workers": 1,
                "splits": {"folder": str(folder / "splits")},
            },
        },
        "backbones": {
            name: {
                "class_path": class_path,
                "init_args": {**arguments, "weights": str(Path(str(WEIGHTS)) / FILES[name])},
            }
            for name, (class_path, arguments) in BACKBONES.items()
        },
    }
    (folder / "extract.yaml").write_text(json.dumps(config))
    torch.set_num_threads(os.cpu_count() or 1)
    out = folder / "features"
    main(["extract", f"--config={folder / 'extract.yaml'}", f"--out={out}", "--devices=1"])
    return out


@pytest.fixture(scope="module")
def draws(features: Path) -> list[Path]:
    """The same features with the splits of five seeds."""
    store = FeatureStore.open(features)
    folders = []
    for seed in SEEDS:
        unsplit = Manifest(store.manifest.frame.assign(split=""), store.manifest.root)
        manifest = assign_splits(unsplit, Splits(0.2, 0.1), seed=seed)
        out = features.with_name(f"features-{seed}")
        with new_store(out, manifest, spec=store.spec, metadata=store.metadata) as matrices:
            for name, matrix in matrices.items():
                matrix[:] = store.matrix([name])
        folders.append(out)
    return folders


def test_extract__equals_plain_timm(features: Path) -> None:
    store = FeatureStore.open(features)
    model = timm.create_model("vit_base_patch16_clip_quickgelu_224", num_classes=512).eval()
    model.load_state_dict(load_file(Path(str(WEIGHTS)) / FILES["clip"]))
    config = timm.data.resolve_model_data_config(model)
    transform = transforms.Compose(
        [
            transforms.Resize(224, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(config["mean"], config["std"]),
        ]
    )
    rows = np.linspace(0, len(store.manifest) - 1, 24).astype(np.int64)
    paths = [store.manifest.resolve(store.manifest.frame["path"].iloc[row]) for row in rows]
    opened = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in paths]
    with torch.inference_mode():
        batch = torch.stack([transform(image) for image in opened])
        plain = model.forward_head(model.forward_features(batch), pre_logits=True)
    ours = torch.from_numpy(store.matrix(["clip.pooled"], rows=rows))
    cosine = torch.nn.functional.cosine_similarity(plain, ours)
    print(f"\nlowest cosine to plain timm on 24 images: {cosine.min():.7f}")
    assert cosine.min() >= 0.9999


def test_heads__equal_plain_sklearn(draws: list[Path], tmp_path: Path) -> None:
    heads = {"svm": "rbf_svm", "lda": "lda"}
    plain = {
        "svm": make_pipeline(StandardScaler(), SVC(C=1.0)),
        "lda": make_pipeline(
            StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
        ),
    }
    _fit_heads(draws[0], tmp_path, heads, "clip.pooled")
    frame = FeatureStore.open(draws[0]).manifest.frame
    matrix = np.load(draws[0] / "clip.pooled.npy")
    train = (frame["split"] == "train") & ~frame["path"].duplicated()
    for name, pipeline in plain.items():
        pipeline.fit(matrix[train], frame["label"][train])
        scores = read_scores(tmp_path / name / "scores.csv")
        assert scores["path"].tolist() == frame["path"].tolist()
        np.testing.assert_array_equal(scores["score"] > 0, pipeline.predict(matrix) == 1)


def test_accuracy__five_seeds(draws: list[Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    heads = {
        "shrinkage LDA": "lda",
        "RBF SVM": "rbf_svm",
        "logistic regression": "logistic_regression",
    }
    layers = {
        "CLIP": "clip.pooled",
        "CLIP block 8": "clip.block8.cls",
        "CLIP + DINOv2": "clip.pooled,dinov2.block8.cls",
    }
    table: dict[tuple[str, str], list[float]] = {}
    for name, chosen in layers.items():
        for seed, folder in zip(SEEDS, draws, strict=True):
            run = tmp_path / name.replace(" ", "_") / str(seed)
            _fit_heads(folder, run / "heads", heads, chosen)
            files = {head: run / "heads" / head / "scores.csv" for head in heads}
            files["linear probe"] = _fit_probe(folder, run, chosen, seed)
            for head, file in files.items():
                table.setdefault((head, name), []).append(_test_accuracy(file))
    mean = pd.Series({key: float(np.mean(values)) for key, values in table.items()}).unstack()
    spread = pd.Series({key: float(np.std(values, ddof=1)) for key, values in table.items()})
    print(f"\nMean test accuracy over {len(SEEDS)} seeds\n{mean[list(layers)].round(4)}")
    print(f"\nStandard deviation over the seeds\n{spread.unstack()[list(layers)].round(4)}")
    assert mean.loc["linear probe", "CLIP"] >= 0.95
    assert mean.loc["shrinkage LDA", "CLIP"] >= 0.945
    assert mean.loc["RBF SVM", "CLIP"] >= 0.935


def _fit_heads(features: Path, out: Path, heads: dict[str, str], layers: str) -> None:
    factories = {n: {"class_path": f"dfl.heads.estimators.{f}"} for n, f in heads.items()}
    names = {name: name.replace(" ", "_") for name in heads}
    chosen = json.dumps({names[name]: factory for name, factory in factories.items()})
    main(
        [
            "heads",
            f"--features={features}",
            f"--out={out}",
            f"--heads={chosen}",
            f"--layers=[{layers}]",
        ]
    )
    for name, stored in names.items():
        (out / stored).rename(out / name)


def _fit_probe(features: Path, run: Path, layers: str, seed: int) -> Path:
    args = [
        f"--trainer={REPOSITORY / 'configs/trainer/default.yaml'}",
        "--trainer.devices=1",
        f"--trainer.logger.save_dir={run}",
        f"--model={REPOSITORY / 'configs/model/linear_probe.yaml'}",
        "--data=dfl.features.FeatureDataModule",
        f"--data.features={features}",
        f"--data.layers=[{layers}]",
        f"--data.seed={seed}",
        f"--seed_everything={seed}",
    ]
    main(["fit", *args])
    checkpoint = run / "dfl/version_0/checkpoints/best.ckpt"
    main(["test", *args, f"--ckpt_path={checkpoint}"])
    return run / "dfl/version_1/scores.csv"


def _test_accuracy(file: Path) -> float:
    scores = read_scores(file)
    test = scores[scores["split"] == "test"].drop_duplicates("path")
    return binary_metrics(test["score"], test["label"])["accuracy"]
