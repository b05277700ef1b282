import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from jsonargparse import auto_cli
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from dfl.commands.heads import heads
from dfl.commands.score import score
from dfl.data import Manifest
from dfl.errors import CheckpointError, FeatureError, HeadError, ScoreError
from dfl.evaluation import read_scores
from dfl.features.store import new_store
from dfl.heads.estimators import (
    knn,
    lda,
    linear_svm,
    logistic_regression,
    naive_bayes,
    prototypes,
    rbf_svm,
)
from dfl.heads.estimators.provenance import provenance_of
from dfl.heads.estimators.reductions import pca
from dfl.heads.storage.head_folder import HEAD, load_head, save_head
from dfl.types import FeatureSpec
from tests.conftest import REPOSITORY
from tests.heads.estimators.test_encoder_step import checkpoint_of, trained
from tests.heads.sklearn_examples import SPEC, images
from tests.heads.text_examples import stand_in

CONFIGS = REPOSITORY / "configs" / "head"
ALL_HEADS = [
    "linear_svm",
    "rbf_svm",
    "lda",
    "lda_plain",
    "logistic_regression",
    "decision_tree",
    "random_forest",
    "knn",
    "naive_bayes",
    "gradient_boosting",
]
METADATA = {
    "preprocess": {"crop": {"class_path": "dfl.data.CenterCrop", "init_args": {"size": 32}}},
    "backbones": {
        name: {"class_path": f"dfl.backbones.{name}", "init_args": {"layers": ["block3", "pooled"]}}
        for name in ("clip", "dino")
    },
    "precision": "bf16-mixed",
    "engine": "openvino",
}


def store(folder: Path, *, spec: FeatureSpec = SPEC, seed: int = 0, train: str = "train") -> Path:
    """Write 120 images in two pairs that share a real one, and an image of unknown label."""
    features, label = images(123, seed)
    label[-1] = -1
    rows = [
        {
            "path": f"{i}.png",
            "label": int(label[i]),
            "dataset": "ab"[i // 2 % 2],
            "generator": ("real", "gan", "unknown")[label[i]],
            "split": (train, train, "val", "test", "test")[i // 2 % 5],
            "group": f"{i}.png",
        }
        for i in range(123)
    ]
    rows[122] |= {"split": "test"}
    rows[120] = rows[0] | {"dataset": "b"}
    features[120] = features[0]
    manifest = Manifest.from_rows(rows, folder)
    start = 0
    with new_store(folder, manifest, spec=spec, metadata=METADATA) as matrices:
        for layer in spec:
            matrices[layer.name][:] = features[:, start : start + layer.dim]
            start += layer.dim
    return folder


def table_and_matrix(folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
    table = pd.read_csv(folder / "manifest.csv")
    return table, np.hstack([np.load(folder / f"{layer.name}.npy") for layer in SPEC])


@pytest.mark.parametrize("name", ["svm", "lda"])
def test_heads__predicts_what_plain_sklearn_predicts(tmp_path: Path, name: str) -> None:
    folder = store(tmp_path / "features")
    table, matrix = table_and_matrix(folder)
    train = [i for i, row in table.iterrows() if row["split"] == "train" and i != 120]
    scaler = StandardScaler().fit(matrix[train])
    plain = {
        "svm": SVC(kernel="rbf", C=1.0, gamma="scale"),
        "lda": LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"),
    }[name].fit(scaler.transform(matrix[train]), table["label"][train])
    known = table["label"] != -1
    expected = plain.decision_function(scaler.transform(matrix[known]))

    heads(folder, tmp_path / "out", heads={"svm": rbf_svm(), "lda": lda()})
    scores = read_scores(tmp_path / "out" / name / "scores.csv")

    np.testing.assert_array_equal(scores["score"] > 0, expected > 0)
    np.testing.assert_allclose(scores["score"], expected, rtol=1e-5, atol=1e-6)
    assert scores["path"].tolist() == table["path"][known].tolist()


def test_heads__stores_what_scores_again(tmp_path: Path) -> None:
    folder = store(tmp_path / "features")

    heads(folder, tmp_path / "out", heads={"svm": rbf_svm()}, reduction=pca(5))
    again = score(folder, tmp_path / "out" / "svm", out=tmp_path / "again.csv")

    first = read_scores(tmp_path / "out" / "svm" / "scores.csv")
    assert again["score"].tolist()[:-1] == first["score"].tolist()
    assert again["label"].iloc[-1] == -1
    stored = replace(load_head(tmp_path / "out" / "svm"), threshold=0.5)
    save_head(stored, tmp_path / "chosen")
    counted = score(folder, tmp_path / "chosen", out=tmp_path / "counted.csv")["score"]
    np.testing.assert_allclose(counted, again["score"] - 0.5, rtol=1e-12, atol=1e-12)
    assert sorted(path.name for path in (tmp_path / "out" / "svm").iterdir()) == [
        "head.json",
        "head.skops",
        "scores.csv",
    ]


def test_heads__trains_on_an_image_once(tmp_path: Path) -> None:
    folder = store(tmp_path / "features")
    table, _ = table_and_matrix(folder)
    train = table[table["split"] == "train"]

    heads(folder, tmp_path / "out", heads={"lda": lda()})

    counts = HEAD.read(tmp_path / "out" / "lda")["trained_on"]
    assert counts == {"real": (train["label"] == 0).sum() - 1, "fake": (train["label"] == 1).sum()}


def test_heads__say_what_stands_in_for_families_and_sources(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = store(tmp_path / "features")
    table, _ = table_and_matrix(folder)
    train = table[table["split"] == "train"].drop_duplicates("path")
    fakes = int((train["label"] == 1).sum())

    heads(folder, tmp_path / "out", heads={"lda": lda(), "kinds": prototypes()})

    assert caplog.messages == [
        f"kinds: {fakes} of the fakes have no family: their generator stands for it; "
        f"{len(train) - fakes} of the photographs have no source: their datasets stand for it "
        "(columns of the manifest)"
    ]
    kinds = load_head(tmp_path / "out" / "kinds").pipeline[-1].kinds_
    assert kinds == [
        *sorted(set(provenance_of(table)["source"][train.index][train["label"] == 0])),
        *sorted(set(train["generator"][train["label"] == 1])),
    ]


def test_heads__reports_every_head_and_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = store(tmp_path / "features")

    table = heads(folder, tmp_path / "out", heads={"svm": rbf_svm(), "lda": lda()})

    pooled = table[table["scope"] == "pooled"]
    assert list(zip(pooled["head"], pooled["split"], strict=True)) == [
        ("svm", "train"),
        ("lda", "train"),
        ("svm", "val"),
        ("lda", "val"),
        ("svm", "test"),
        ("lda", "test"),
    ]
    assert pooled["accuracy"].between(0.3, 1).all()
    out = capsys.readouterr().out
    assert "Validation images" in out
    assert "Test images" in out
    assert "Training images" not in out


def test_heads__uses_the_layers_asked_for(tmp_path: Path) -> None:
    folder = store(tmp_path / "features")

    heads(folder, tmp_path / "out", heads={"lda": lda()}, layers=["dino"])

    assert load_head(tmp_path / "out" / "lda").spec == SPEC[1:]


def test_heads__keeps_how_its_features_are_made(tmp_path: Path) -> None:
    folder = store(tmp_path / "features")

    heads(folder, tmp_path / "out", heads={"lda": lda()}, layers=["dino"])

    head = load_head(tmp_path / "out" / "lda")
    assert head.origin.preprocess == METADATA["preprocess"]
    assert head.origin.execution == {"precision": "bf16-mixed", "engine": "openvino"}
    assert head.origin.backbones == {
        "dino": {"class_path": "dfl.backbones.dino", "init_args": {"layers": ["pooled"]}}
    }


def test_heads__unknown_layer(tmp_path: Path) -> None:
    folder = store(tmp_path / "features")

    with pytest.raises(FeatureError, match="no layer 'vgg'"):
        heads(folder, tmp_path / "out", heads={"lda": lda()}, layers=["vgg"])


def test_heads__refuses_to_replace_before_it_fits_anything(tmp_path: Path) -> None:
    folder = store(tmp_path / "features")
    heads(folder, tmp_path / "out", heads={"lda": lda()})

    with pytest.raises(HeadError, match="lda already holds a head with these settings on these"):
        heads(folder, tmp_path / "out", heads={"svm": rbf_svm(), "lda": lda()})
    with pytest.raises(HeadError, match=r"lda already holds another head; .* --overwrite"):
        heads(folder, tmp_path / "out", heads={"lda": lda(shrinkage=0.5)})

    assert not (tmp_path / "out" / "svm").exists()
    heads(folder, tmp_path / "out", heads={"lda": lda(shrinkage=0.5)}, overwrite=True)


def test_heads__keeps_the_heads_that_came_before_a_failure(tmp_path: Path) -> None:
    folder = store(tmp_path / "features")

    with pytest.raises(HeadError, match=r"^SVC cannot be fitted: The 'C' parameter"):
        heads(folder, tmp_path / "out", heads={"lda": lda(), "svm": rbf_svm(C=-1.0)})

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["lda"]
    assert load_head(tmp_path / "out" / "lda").spec == SPEC


@pytest.mark.parametrize("name", ["../lda", "", ".hidden", "a b"])
def test_heads__name_that_is_no_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(HeadError, match="cannot name a head's folder; use letters"):
        heads(tmp_path, tmp_path / "out", heads={name: lda()})


def test_heads__none_given(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="no head to fit; give --heads or --config"):
        heads(tmp_path, tmp_path / "out", heads={})


def test_heads__no_features(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"nowhere: no such feature folder"):
        heads(tmp_path / "nowhere", tmp_path / "out", heads={"lda": lda()})


def test_heads__no_training_images(tmp_path: Path) -> None:
    folder = store(tmp_path / "features", train="")

    with pytest.raises(
        HeadError, match=r"no labelled image has the split 'train' .found: '', 'test', 'val'"
    ):
        heads(folder, tmp_path / "out", heads={"lda": lda()})


# Features that do not fit in memory


@pytest.mark.parametrize(
    ("layers", "reduction"), [(None, None), (["dino"], pca(3)), (["dino", "clip"], pca(5))]
)
def test_heads__out_of_core_scores_as_in_memory(
    tmp_path: Path, layers: list[str] | None, reduction: Pipeline | None
) -> None:
    folder = store(tmp_path / "features")
    wanted = {"lda": lda(), "lr": logistic_regression(), "svm": linear_svm(), "nb": naive_bayes()}
    for way in ("always", "never"):
        heads(
            folder,
            tmp_path / way,
            heads=wanted,
            reduction=reduction,
            layers=layers,
            out_of_core=way,
        )

    for name in wanted:
        streamed, plain = (
            read_scores(tmp_path / way / name / "scores.csv") for way in ("always", "never")
        )
        assert streamed.drop(columns="score").equals(plain.drop(columns="score"))
        # sklearn's own iterations end at a tolerance of 1e-4
        np.testing.assert_allclose(streamed["score"], plain["score"], rtol=5e-3, atol=5e-3)
        again = score(folder, tmp_path / "always" / name, out=tmp_path / f"{name}.csv")
        np.testing.assert_allclose(again["score"].iloc[:-1], streamed["score"], rtol=1e-12)
    assert sorted(path.name for path in (tmp_path / "always").iterdir()) == sorted(wanted)


def test_heads__out_of_core_where_a_layer_of_them_cannot(tmp_path: Path) -> None:
    folder = store(tmp_path / "features")

    with pytest.raises(HeadError, match="KNeighborsClassifier needs all rows at once, not out_of"):
        heads(folder, tmp_path / "out", heads={"lda": lda(), "knn": knn()}, out_of_core="always")

    assert not (tmp_path / "out").exists()


def test_heads__too_large_for_what_needs_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store(tmp_path / "features")
    monkeypatch.setattr("dfl.heads.out_of_core.fit.IN_MEMORY_BYTES", 100)
    monkeypatch.setattr("dfl.heads.out_of_core.fit.free_memory", lambda: 9000)

    with pytest.raises(
        HeadError, match=r"^KNeighborsClassifier needs all 49 x 12 training features"
    ):
        heads(folder, tmp_path / "out", heads={"nb": naive_bayes(), "knn": knn()})
    heads(folder, tmp_path / "out", heads={"nb": naive_bayes()})
    monkeypatch.setattr("dfl.heads.out_of_core.fit.free_memory", lambda: 2**30)
    table = heads(folder, tmp_path / "both", heads={"nb": naive_bayes(), "knn": knn()})

    assert set(table["head"]) == {"nb", "knn"}
    both = (read_scores(tmp_path / out / "nb" / "scores.csv") for out in ("out", "both"))
    assert next(both).equals(next(both))


def test_heads__rbf_svm_of_many_images_is_nystroems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store(tmp_path / "features")
    monkeypatch.setattr("dfl.heads.out_of_core.fit.EXACT_RBF_ROWS", 40)

    heads(folder, tmp_path / "out", heads={"svm": rbf_svm()})

    assert [name for name, _ in load_head(tmp_path / "out" / "svm").pipeline.steps] == [
        "scale",
        "kernel",
        "estimator",
    ]
    again = score(folder, tmp_path / "out" / "svm", out=tmp_path / "again.csv")
    first = read_scores(tmp_path / "out" / "svm" / "scores.csv")
    np.testing.assert_allclose(again["score"].iloc[:-1], first["score"], atol=1e-9)


# The command line


def run(*args: str | Path) -> pd.DataFrame:
    return auto_cli(heads, args=[str(arg) for arg in args], as_positional=False)


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_command__fits_every_config(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, width=12)  # the weights of a text tower are on the hub
    folder = store(tmp_path / "features")
    few = ["--heads.random_forest.n_estimators=5", "--heads.gradient_boosting.max_iter=5"]

    table = run(
        "--config",
        config,
        "--features",
        folder,
        "--out",
        tmp_path / "out",
        *(few if config.stem == "all" else []),
    )

    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == set(table["head"])
    expected = {
        "all": set(ALL_HEADS),
        "svm": {"svm"},
        "lda": {"lda"},
        "floor": {"photograph_distance"},
        "kinds": {"balanced", "one_per_family", "prototypes"},
        "text": {"zero_shot", "learned_text"},
    }
    assert names == expected[config.stem]


def test_command__overrides_a_setting(tmp_path: Path) -> None:
    folder, out = store(tmp_path / "features"), tmp_path / "out"
    config = CONFIGS / "svm.yaml"

    run(
        "--config", config, "--features", folder, "--out", out, "--heads.svm.C=7", "--layers=[clip]"
    )

    head = load_head(out / "svm")
    assert head.pipeline[-1].C == 7.0
    assert head.pipeline[-1].gamma == "scale"
    assert head.spec == SPEC[:1]


def test_command__without_a_config(tmp_path: Path) -> None:
    folder, out = store(tmp_path / "features"), tmp_path / "out"

    run(
        *("--features", folder, "--out", out, "--heads.near=dfl.heads.estimators.knn"),
        *("--heads.near.n_neighbors=3", "--reduction=dfl.heads.estimators.pca"),
        "--reduction.n_components=4",
    )

    pipeline = load_head(out / "near").pipeline
    assert pipeline[-1].n_neighbors == 3
    assert pipeline["pca"].n_components == 4


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--heads.svm.D=1", "D"),
        ("--heads.svm.C=large", "Expected a <class 'float'>. Got value: large"),
        ("--heads.svm.gamma=wide", "gamma"),
        ("--heads.svm=dfl.heads.estimators.svn", "has no attribute 'svn'"),
        ("--heads.svm=sklearn.svm.SVC", "sklearn.svm.SVC"),
        ("--head.svm=dfl.heads.estimators.lda", "head.svm"),
        ("--overwrite=perhaps", "overwrite"),
        ("--out_of_core=perhaps", "out_of_core"),
    ],
)
def test_command__says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    config = CONFIGS / "svm.yaml"

    with pytest.raises(SystemExit) as stop:
        run("--config", config, "--features", tmp_path, "--out", tmp_path / "out", argument)

    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_command__missing_bottleneck_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no\.ckpt: no such checkpoint; name the \.ckpt"):
        run(
            *("--config", CONFIGS / "svm.yaml", "--features", store(tmp_path / "features")),
            *("--out", tmp_path / "out", "--reduction=dfl.heads.estimators.bottleneck"),
            f"--reduction.checkpoint={tmp_path / 'no.ckpt'}",
        )


def test_command__behind_a_bottleneck(tmp_path: Path) -> None:
    folder, out = store(tmp_path / "features"), tmp_path / "out"
    checkpoint = checkpoint_of(trained(), tmp_path / "b.ckpt")

    run(
        *("--config", CONFIGS / "svm.yaml", "--features", folder, "--out", out),
        *("--reduction=dfl.heads.estimators.bottleneck", f"--reduction.checkpoint={checkpoint}"),
    )
    checkpoint.unlink()

    again = score(folder, out / "svm", out=tmp_path / "again.csv")
    stored = read_scores(out / "svm" / "scores.csv")
    assert again["score"].tolist()[:-1] == stored["score"].tolist()


def test_command__help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")

    text = capsys.readouterr().out
    assert "Fit sklearn heads on a feature folder" in text
    assert "Feature folder that `dfl extract` made" in text


# Scoring other features


def test_score__another_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heads(store(tmp_path / "a"), tmp_path / "out", heads={"lr": logistic_regression()})
    other = store(tmp_path / "b", seed=1)
    _, matrix = table_and_matrix(other)
    capsys.readouterr()

    auto_cli(
        score,
        args=[
            f"--features={other}",
            f"--head={tmp_path / 'out' / 'lr'}",
            f"--out={tmp_path / 'scores.csv'}",
        ],
        as_positional=False,
    )

    expected = load_head(tmp_path / "out" / "lr").score(matrix)
    assert read_scores(tmp_path / "scores.csv")["score"].tolist() == expected.tolist()
    assert "lr on b" in capsys.readouterr().out


def test_score__takes_its_layers_by_name(tmp_path: Path) -> None:
    first = store(tmp_path / "a")
    heads(first, tmp_path / "out", heads={"near": knn(n_neighbors=1)}, layers=["dino", "clip"])

    scores = score(first, tmp_path / "out" / "near", out=tmp_path / "scores.csv")

    train = scores[scores["split"] == "train"]
    assert ((train["score"] > 0) == (train["label"] == 1)).all()


def test_score__another_backbone(tmp_path: Path) -> None:
    heads(store(tmp_path / "a"), tmp_path / "out", heads={"lda": lda()})
    spec = (SPEC[0], type(SPEC[1])("dino.pooled", 4, "c" * 64))
    other = store(tmp_path / "b", spec=spec)

    with pytest.raises(
        HeadError, match=r"b: layer 'dino\.pooled' has the fingerprint cccccccc, not bbbbbbbb; extr"
    ):
        score(other, tmp_path / "out" / "lda", out=tmp_path / "scores.csv")


def test_score__backbone_of_random_weights(tmp_path: Path, monkeypatch) -> None:
    random = {"class_path": "dfl.backbones.TimmBackbone", "init_args": {"pretrained": False}}
    monkeypatch.setitem(METADATA, "backbones", {"clip": random, "dino": random})
    heads(store(tmp_path / "a"), tmp_path / "out", heads={"lda": lda()})
    other = store(tmp_path / "b", spec=(SPEC[0], type(SPEC[1])("dino.pooled", 4, "c" * 64)))

    with pytest.raises(
        HeadError, match=r"had random weights \(pretrained: false\), which no other"
    ):
        score(other, tmp_path / "out" / "lda", out=tmp_path / "scores.csv")


def test_score__missing_layer(tmp_path: Path) -> None:
    heads(store(tmp_path / "a"), tmp_path / "out", heads={"lda": lda()})
    other = store(tmp_path / "b", spec=SPEC[:1])

    with pytest.raises(
        HeadError, match=r"layer 'dino\.pooled' is missing \(there: clip\.pooled\); extract"
    ):
        score(other, tmp_path / "out" / "lda", out=tmp_path / "scores.csv")


def test_score__table_that_is_there(tmp_path: Path) -> None:
    folder, table = store(tmp_path / "a"), tmp_path / "scores.csv"
    heads(folder, tmp_path / "out", heads={"lda": lda()})
    table.write_text("mine")

    with pytest.raises(ScoreError, match=r"scores\.csv is there already; pass --overwrite"):
        score(folder, tmp_path / "out" / "lda", out=table)
    assert table.read_text() == "mine"

    score(folder, tmp_path / "out" / "lda", out=table, overwrite=True)
    assert len(read_scores(table)) == 123


def test_score__of_a_head_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=r"out: no such head; fit one with `dfl heads`"):
        score(store(tmp_path / "a"), tmp_path / "out", out=tmp_path / "scores.csv")


def test_heads__head_json_names_its_features(tmp_path: Path) -> None:
    heads(store(tmp_path / "a"), tmp_path / "out", heads={"lda": lda()})

    document = json.loads((tmp_path / "out" / "lda" / "head.json").read_text())

    assert [layer["name"] for layer in document["features"]] == ["clip.pooled", "dino.pooled"]
