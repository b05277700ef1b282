"""From photographs to a manifest of pairs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dfl.cli import main
from dfl.commands.reconstruct import reconstruct
from dfl.data import CenterCrop, ImageDataModule, ManifestFile, Pair, Pairs, Splits
from dfl.data.images.decode import decode
from dfl.errors import ConfigError, DataError
from dfl.reconstruct import Mixing, RandomAutoencoder, task
from dfl.reconstruct.copies import jpeg_tables, recompressed
from tests.processes import run_ranks
from tests.reconstruct.small_networks import Blocky
from tests.runs import image_data


@pytest.fixture
def data(image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageDataModule:
    """Two pairs that share their photographs, of 64 x 48 pixels."""
    monkeypatch.chdir(tmp_path)
    pairs = {name: Pair("alpha/0_real", f"{name}/1_fake") for name in ("alpha", "beta")}
    return ImageDataModule(Pairs(image_root, pairs), crop=CenterCrop(32))


def _run(data: ImageDataModule, out: str = "out", **settings: object) -> pd.DataFrame:
    settings = {"reconstructors": {"four": Blocky(4), "five": Blocky(5, "blocks")}} | settings
    made = reconstruct(data, out=Path(out), accelerator="cpu", devices=1, **settings)
    assert made is not None
    return made.frame


def _bytes(folder: str = "out") -> dict[str, bytes]:
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_reconstruct__pairs_of_the_training_split(data, image_root: Path, capsys) -> None:
    made = _run(data)
    frame = data.manifest.frame
    trained = frame[(frame["split"] == "train") & (frame["label"] == 0)]
    assert len(made) == 3 * len(trained)
    assert set(made["split"]) == {"train"}
    assert made["dataset"].tolist() == 3 * trained["dataset"].tolist()
    assert made["group"].tolist() == 3 * trained["group"].tolist()
    assert set(made["source"]) == {"alpha+beta"}  # of which each has all photographs
    for name, label, family in (("real", 0, ""), ("four", 1, "four"), ("five", 1, "blocks")):
        rows = made[made["generator"] == name]
        assert set(rows["label"]) == {label}
        assert set(rows["family"]) == {family}
        for path, photograph in zip(rows["path"], trained["path"], strict=True):
            assert path == f"{name}/{photograph}.png"
            image = decode(image_root / photograph)[:, :40, :60]  # 20 is a multiple of both
            expected = (
                image if name == "real" else {"four": Blocky(4), "five": Blocky(5)}[name](image)
            )
            assert torch.equal(decode(Path("out", path)), expected)
    said = capsys.readouterr().out
    count = trained["path"].nunique()
    assert f"{count} photographs of the training split; sides cut to multiples of 20 pixels" in said
    assert f"out/four: {count} made, 0 there before" in said


def test_reconstruct__is_a_source_of_images(data) -> None:
    made = _run(data)
    again = ImageDataModule(
        ManifestFile(Path("out/manifest.csv")),
        crop=CenterCrop(32),
        splits=Splits(val_fraction=0),  # else some of them are validated on
    )
    again.prepare_data()
    again.setup()
    columns = ["path", "label", "generator", "group", "split", "family", "source"]
    assert again.manifest.frame[columns].to_csv() == made[columns].to_csv()


def test_reconstruct__killed_goes_on_to_the_same_bytes(data, monkeypatch, capsys) -> None:
    _run(data, "whole")
    write = task.write_copy
    written = []

    def killed(image: torch.Tensor, file: Path, made_of: str) -> None:
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(file)
        write(image, file, made_of)

    monkeypatch.setattr(task, "write_copy", killed)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        _run(data)
    monkeypatch.setattr(task, "write_copy", write)
    assert not Path("out/reconstructions.json").exists()
    Path("out/four/.left.1-0123abcd.png").touch()  # of a write that never ended
    written[0].write_bytes(written[0].read_bytes()[:-20])
    capsys.readouterr()
    _run(data)
    assert _bytes("out") == _bytes("whole")
    assert "6 there before" in str(_totals(capsys.readouterr().out))
    inodes = {path: path.stat().st_ino for path in Path("out").rglob("*")}
    _run(data)
    assert _totals(capsys.readouterr().out).startswith("0 made")
    assert {path: path.stat().st_ino for path in Path("out").rglob("*")} == inodes


def _totals(said: str) -> str:
    lines = [line.split(": ")[1].split() for line in said.splitlines() if " made, " in line]
    made, before = sum(int(line[0]) for line in lines), sum(int(line[-3]) for line in lines)
    return f"{made} made, {before} there before"


def test_reconstruct__a_photograph_that_changes_is_drawn_anew(data, image_root, capsys) -> None:
    path = data.source.root  # a copy, since others share the folder
    folder = Path("own")
    for file in path.glob("alpha/*/*"):
        target = folder / file.relative_to(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())

    def again() -> ImageDataModule:
        pairs = {"alpha": Pair("alpha/0_real", "alpha/1_fake")}
        return ImageDataModule(Pairs(folder, pairs), crop=CenterCrop(32))

    first = _run(again())
    capsys.readouterr()
    changed = first["path"][0].removeprefix("real/").removesuffix(".png")
    Image.new("RGB", (64, 48), "red").save(folder / changed)
    _run(again())
    assert _totals(capsys.readouterr().out).startswith("3 made")


def test_reconstruct__others_are_replaced_only_if_asked(data) -> None:
    _run(data)
    other = {"reconstructors": {"four": Blocky(10), "five": Blocky(5)}}
    with pytest.raises(DataError, match="holds other files, or copies by other reconstructors"):
        _run(data, **other)
    _run(data, **other, overwrite=True)
    image = decode(next(Path("out/four").rglob("*.png")))
    assert torch.equal(image, Blocky(10)(image))


def test_reconstruct__jpeg_as_the_photograph(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for number, ending in enumerate(["jpg", "png"]):
        for side in ("0_real", "1_fake"):
            file = tmp_path / "set" / side / f"{number}.{ending}"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(file, quality=40)
    table = "path,label,dataset,generator,split,group,source\n" + "".join(
        f"set/0_real/{name},0,set,real,train,{name},camera\n" for name in ("0.jpg", "1.png")
    )
    Path("m.csv").write_text(table + "set/1_fake/0.jpg,1,set,gan,train,f,\n")
    data = ImageDataModule(ManifestFile(Path("m.csv")), crop=CenterCrop(32))
    made = _run(data, reconstructors={"four": Blocky()}, jpeg="same")
    assert set(made["source"]) == {"camera"}
    tables = jpeg_tables(Path("set/0_real/0.jpg").read_bytes())
    assert tables is not None
    drawn = Blocky()(decode("set/0_real/0.jpg"))
    assert torch.equal(decode("out/four/set/0_real/0.jpg.png"), recompressed(drawn, tables))
    assert torch.equal(decode("out/real/set/0_real/0.jpg.png"), decode("set/0_real/0.jpg"))
    plain = Blocky()(decode("set/0_real/1.png"))
    assert torch.equal(decode("out/four/set/0_real/1.png.png"), plain)


def test_reconstruct__mixed_copies_say_how(data) -> None:
    made = _run(data, mixing=Mixing(pixels=0.0, bands=0.0, patches=0.5, patch=20))
    patches = np.load("out/patches.npz")
    mixed = made[made["mixed"] != ""].drop_duplicates("path")
    assert set(patches) == set(mixed["path"])
    assert 0 < len(mixed) < made["path"].nunique()
    for path in mixed["path"]:
        folder, photograph = path.split("/", 1)
        real, copy = (decode(Path("out", each, photograph)) for each in ("real", folder))
        is_same = (real == copy).all(0).unfold(0, 20, 20).unfold(1, 20, 20).all(-1).all(-1)
        assert torch.equal(is_same, torch.from_numpy(patches[path]) == 0)


def test_reconstruct__trained_ones_are_trained_once(data, monkeypatch) -> None:
    trained = {"reconstructors": {"small": RandomAutoencoder(1, steps=2, patch=16)}}
    _run(data, **trained)
    whole = _bytes()
    assert "small.safetensors" in whole
    next(Path("out/small").rglob("*.png")).unlink()
    monkeypatch.setattr(RandomAutoencoder, "fit", None)  # it would fail
    _run(data, reconstructors={"small": RandomAutoencoder(1, steps=2, patch=16)})
    assert _bytes() == whole
    with pytest.raises(DataError, match=r"of other photographs: out/small\.safetensors; name"):
        _run(data, reconstructors={"small": RandomAutoencoder(1, steps=3, patch=16)})
    assert _bytes() == whole


@pytest.mark.parametrize("name", ["real", "a/b", ".hidden"])
def test_reconstruct__names_that_no_generator_can_have(data, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a generator's name"):
        _run(data, reconstructors={name: Blocky()})


def test_reconstruct__no_photograph_to_train_on(image_root: Path, tmp_path: Path) -> None:
    pairs = {"alpha": Pair("alpha/0_real", "alpha/1_fake")}
    splits = Splits(test_fraction=1.0, val_fraction=0.0, folder=tmp_path)
    data = ImageDataModule(Pairs(image_root, pairs), crop=CenterCrop(32), splits=splits)
    with pytest.raises(DataError, match="no photograph is trained on, of 12 real images"):
        _run(data, str(tmp_path / "out"))


@pytest.fixture
def args(image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    network = "--reconstructors.small"
    return [
        "reconstruct",
        *image_data(image_root),
        f"{network}=dfl.reconstruct.RandomAutoencoder",
        f"{network}.seed=1",
        f"{network}.steps=1",
        f"{network}.patch=16",
        "--mixing.pixels=0.5",
        "--accelerator=cpu",
    ]


@pytest.mark.slow
def test_reconstruct__two_processes_write_what_one_does(args: list[str]) -> None:
    ended = run_ranks([*args, "--out=two", "--devices=2", "--strategy=ddp"], 2)
    assert [each.code for each in ended] == [0, 0], ended
    main([*args, "--out=one", "--devices=1"])
    one, two = _bytes("one"), _bytes("two")
    assert one.pop("config.yaml") != two.pop("config.yaml")
    assert one == two


def test_reconstruct__from_the_command_line(args: list[str]) -> None:
    main([*args, "--out=out", "--devices=1"])
    assert Path("out/config.yaml").exists()
    assert pd.read_csv("out/manifest.csv")["generator"].unique().tolist() == ["real", "small"]
