"""The command `bench`: it times what it says, on the images it says."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import torch

from dfl.backbones import FusedBackbone, TimmBackbone
from dfl.bench.plain_loop import plain_loop
from dfl.bench.table import print_rates
from dfl.cli import main
from tests.runs import image_data


def options(root: Path, *more: str) -> list[str]:
    backbone = {
        "class_path": "dfl.backbones.TimmBackbone",
        "init_args": {"model": "test_vit", "pretrained": False, "input_size": 32},
    }
    given = [f"--backbones={json.dumps({'vit': backbone})}", "--accelerator=cpu", "--images=20"]
    return ["bench", *image_data(root), *given, *more]


def fails(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as caught:
        main(args)
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.slow
def test_bench__measures_every_stage_and_keeps_the_rates(
    image_root: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: Counter[str] = Counter()
    encode = TimmBackbone.encode

    def counted(self, image):
        seen["images"] += len(image)
        return encode(self, image)

    monkeypatch.setattr(TimmBackbone, "encode", counted)
    main(options(image_root, "--repeats=2", "--out=rates/rates.csv", "--precision=32-true"))
    rates = pd.read_csv("rates/rates.csv")
    assert list(rates.columns) == ["data", "backbone", "extract", "plain"]
    assert len(rates) == 2
    assert (rates > 0).all().all()
    # the dimension; per repeat: first batch, backbone, extract, plain loop; the comparison, once
    assert seen["images"] == 1 + 2 * (8 + 20 + 20 + 20) + 20
    printed = capsys.readouterr().out
    assert "median of 2 runs of 20 images" in printed
    assert "cosine to float32, vit.pooled: lowest 1.00000, mean 1.00000" in printed
    assert "precision 32-true, engine eager" in printed


def test_bench__without_the_plain_loop(image_root: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    main(options(image_root, "--repeats=1", "--plain=false", "--out=rates.csv"))
    assert list(pd.read_csv("rates.csv").columns) == ["data", "backbone", "extract"]


def test_bench__leaves_the_features_of_nobody(
    image_root: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(options(image_root, "--repeats=1", "--plain=false"))
    assert {path.name for path in tmp_path.iterdir()} <= {"splits"}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--images=0", "images: must be at least 1, got 0"),
        ("--repeats=0", "repeats: must be at least 1, got 0"),
        ("--out=rates.txt", "out: must end in .csv, got rates.txt"),
    ],
)
def test_mistake__one_line(image_root: Path, option: str, message: str, capsys) -> None:
    assert message in fails(options(image_root, option), capsys)


def test_plain_loop__gives_each_backbone_every_image(image_root: Path, monkeypatch) -> None:
    backbones = {n: TimmBackbone("test_vit", pretrained=False, input_size=32) for n in "ab"}
    seen = []
    monkeypatch.setattr(
        TimmBackbone, "encode", lambda self, image: seen.append(image) or {"pooled": image[:, 0]}
    )
    files = sorted((image_root / "alpha").rglob("*.png"))
    assert plain_loop(FusedBackbone(backbones), files) > 0
    assert sum(map(len, seen)) == 2 * len(files)
    assert seen[-1].shape[1:] == (3, 32, 32)
    assert seen[-1].dtype == torch.float32


def test_table__ratios_are_within_runs(capsys) -> None:
    rates = pd.DataFrame(
        {
            "data": [9.0, 9, 9],
            "backbone": [10.0, 20, 40],
            "extract": [9.0, 19, 36],
            "plain": [3.0, 4, 9],
        }
    )
    cosine = pd.DataFrame({"lowest": [0.9991], "mean": [0.9999]}, index=["clip.pooled"])
    print_rates(rates, images=64, warm_up_s=1.25, cosine=cosine)
    printed = capsys.readouterr().out
    assert "0.90 of the backbones alone" in printed  # of 0.90, 0.95, 0.90
    assert "extract is 4.0 times as fast" in printed  # of 3, 4.75, 4
    assert "extract               19.0   (9.0 to 36.0)" in printed
    assert "start-up and first batch: 1.2 s" in printed
    assert "clip.pooled: lowest 0.99910, mean 0.99990" in printed
