"""Text heads through the command line, with the weights of a tiny text tower."""

from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch

from dfl.backbones import text
from dfl.cli import main
from dfl.evaluation import read_scores
from dfl.heads import load_head
from tests.backbones.tiny_clip import register, whole_model
from tests.conftest import REPOSITORY
from tests.runs import write_features

CONFIG = REPOSITORY / "configs" / "head" / "text.yaml"
PROMPTS = {"real": ["a photo", "a snapshot"], "fake": ["a render"]}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write features of 16 columns, a text model of the same width, and name them."""
    text._encode.cache_clear()
    register("dfl-tiny-clip", tmp_path / "configs", monkeypatch, width=16)
    write_features(tmp_path / "features")
    heads = [
        f"--heads.{head}.{option}"
        for head in ("zero_shot", "learned_text")
        for option in (
            "model=dfl-tiny-clip",
            f"weights={tmp_path / 'clip.safetensors'}",
            f"real_prompts={PROMPTS['real']}",
            f"fake_prompts={PROMPTS['fake']}",
        )
    ]
    folders = [f"--features={tmp_path / 'features'}", f"--out={tmp_path / 'out'}"]
    return ["heads", f"--config={CONFIG}", "--layers=[tiny.pooled]", *folders, *heads]


def test_heads__score_as_open_clip_does(run: list[str], tmp_path: Path) -> None:
    model = whole_model("dfl-tiny-clip", tmp_path / "clip.safetensors")
    main(run)
    (tmp_path / "clip.safetensors").unlink()  # a stored head needs no text tower

    features = np.load(tmp_path / "features" / "tiny.pooled.npy")
    with torch.no_grad():
        unit = torch.nn.functional.normalize(torch.from_numpy(features), dim=-1)
        classes = [
            model.encode_text(open_clip.tokenize(prompts, context_length=16), normalize=True)
            for prompts in PROMPTS.values()
        ]
        mean = torch.stack(
            [torch.nn.functional.normalize(vectors.mean(dim=0), dim=0) for vectors in classes]
        )
        logits = model.logit_scale.exp() * unit @ mean.T
    expected = (logits[:, 1] - logits[:, 0]).numpy()
    scores = read_scores(tmp_path / "out" / "zero_shot" / "scores.csv")["score"]
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    assert load_head(tmp_path / "out" / "zero_shot").score(features).tolist() == scores.tolist()


def test_heads__learn_on_the_training_images(run: list[str], tmp_path: Path) -> None:
    whole_model("dfl-tiny-clip", tmp_path / "clip.safetensors")
    main([*run, "--heads.learned_text.penalty=0.001"])  # the random logit scale is small

    def accuracy(head: str) -> float:
        scores: pd.DataFrame = read_scores(tmp_path / "out" / head / "scores.csv")
        test = scores[scores["split"] == "test"]
        return float(((test["score"] > 0) == (test["label"] == 1)).mean())

    assert accuracy("learned_text") > accuracy("zero_shot") + 0.3


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--heads.zero_shot.weights=nowhere.safetensors", "'nowhere.safetensors': no such file"),
        (
            "--heads.learned_text.penalty=-1",
            "penalty -1.0: give a finite number that is at least 0",
        ),
        ("--reduction=dfl.heads.estimators.pca", "columns of features for texts of 16"),
    ],
)
def test_heads__errors_are_one_line(
    run: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    message: str,
) -> None:
    whole_model("dfl-tiny-clip", tmp_path / "clip.safetensors")

    with pytest.raises(SystemExit) as stop:
        main([*run, option])

    assert stop.value.code == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if ": error: " in text]
    assert message in line
