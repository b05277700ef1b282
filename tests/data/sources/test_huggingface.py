import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from dfl.data import (
    CenterCrop,
    Fields,
    HuggingFace,
    ImageDataModule,
    ManifestFile,
    Pair,
    Pairs,
    Splits,
)
from dfl.data.containers.content import content_hash, read_bytes
from dfl.data.images.decode import decode_bytes
from dfl.data.sources.streams import save_stream
from dfl.errors import ConfigError, DataError
from tests.data.packing import image_table, noted, pack_parquet, png, save_to_disk

CROP = CenterCrop(8)
COUNT = 20
IMAGES = [png(seed) for seed in range(COUNT)]
NOTES = {
    "image": {"_type": "Image"},
    "label": {"_type": "ClassLabel", "names": ["real", "fake"]},
    "model": {"_type": "Value", "dtype": "string"},
}
FIELDS = Fields(generator="model", group=r"image.path: (scene\d+)_")


def table(images: list[bytes] = IMAGES) -> pa.Table:
    count = len(images)
    plain = image_table(
        images,
        label=pa.array([i % 2 for i in range(count)]),
        model=pa.array([f"m{i % 3}" for i in range(count)]),
    )
    return noted(plain, **NOTES)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    pack_parquet(tmp_path / "set" / "0.parquet", table().slice(0, 12))
    pack_parquet(tmp_path / "set" / "1.parquet", table().slice(12))
    return [str(tmp_path / "set" / f"{i}.parquet") for i in range(2)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory, and no progress bars."""
    datasets = pytest.importorskip("datasets", reason="needs the extra [hf]")
    monkeypatch.chdir(tmp_path)
    datasets.disable_progress_bars()
    yield tmp_path
    datasets.enable_progress_bars()


def ready(
    path: str, *, workers: int = 0, folder: str = "splits", **settings: object
) -> ImageDataModule:
    source = HuggingFace(path, **{"fields": FIELDS, "cache_dir": "cache", **settings})
    splits = Splits(folder=Path(folder))
    module = ImageDataModule(source, crop=CROP, splits=splits, batch_size=3, num_workers=workers)
    module.prepare_data()
    module.setup()
    return module


def pixels(loader: DataLoader) -> list[torch.Tensor]:
    return [image for batch in loader for image in batch["image"]]


WANTED = [CROP(decode_bytes(image)) for image in IMAGES]


def check(module: ImageDataModule, name: str) -> None:
    frame = module.manifest.frame
    assert frame["label"].tolist() == [i % 2 for i in range(COUNT)]
    assert frame["generator"].tolist()[:4] == ["real", "m1", "real", "m0"]
    assert frame["group"].tolist()[4] == f"{name}:scene2"
    assert [read_bytes(path) for path in module.manifest.paths()] == IMAGES
    found = pixels(module.predict_dataloader())
    assert all(torch.equal(a, b) for a, b in zip(found, WANTED, strict=True))


def test_saved__needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.chdir(tmp_path)
    save_to_disk(tmp_path / "saved", table())
    module = ready("saved")
    check(module, "saved")
    assert module.manifest.frame["path"][10] == "data-00001-of-00002.arrow::image/0"
    assert len(pixels(module.train_dataloader())) == 14
    again = ready(str(tmp_path / "saved"), folder="other")
    assert again.manifest.frame.equals(module.manifest.frame)


def test_saved__as_the_library_writes_it(here: Path) -> None:
    import datasets

    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=["fake", "real"]),
    )
    cells = [{"bytes": image, "path": None} for image in IMAGES]
    whole = datasets.Dataset.from_dict({"image": cells, "label": [0, 1] * 10}, features)
    parts = {"train": whole.select(range(8)), "validation": whole.select(range(8, COUNT))}
    datasets.DatasetDict(parts).save_to_disk("saved")
    module = ready("saved", fields=Fields())
    frame = module.manifest.frame
    assert frame["label"].tolist() == [1, 0] * 10
    assert set(frame["split"][8:]) == {"test"}  # held out, and there is no other test
    assert [read_bytes(path) for path in module.manifest.paths()] == IMAGES
    one = ready("saved", fields=Fields(), splits=["train"]).manifest.frame
    assert len(one) == 8
    assert set(one["split"]) == {"train", "test", "val"} or set(one["split"]) == {"train", "test"}


def test_library__downloads_once(here: Path, files: list[str]) -> None:
    module = ready("parquet", data_files=files, workers=2, name="set")
    check(module, "set")
    assert set(module.manifest.frame["dataset"]) == {"set"}
    assert len(pixels(module.train_dataloader())) == 14
    module = ready(str(Path(files[0]).parent))
    check(module, "set")


def test_stream__same_rows_in_any_worker(here: Path, files: list[str]) -> None:
    whole = ready("parquet", data_files=files)
    for workers in (0, 2):
        settings = {"folder": f"s{workers}", "cache_dir": f"c{workers}", "workers": workers}
        module = ready("parquet", data_files=files, streaming=True, **settings)
        check(module, "parquet")
        columns = ["label", "dataset", "generator", "split", "group"]
        assert module.manifest.frame[columns].equals(whole.manifest.frame[columns])
        assert len(pixels(module.train_dataloader())) == 14
    hashes = [content_hash(path) for path in module.manifest.paths()]
    assert hashes == [content_hash(path) for path in whole.manifest.paths()]


def test_stream__is_read_once(
    here: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    split_file = ready("parquet", data_files=files, streaming=True).split_file
    monkeypatch.setitem(sys.modules, "datasets", None)
    for file in files:
        Path(file).unlink()
    check(ready("parquet", data_files=files, streaming=True), "parquet")
    split_file.unlink()
    check(ready("parquet", data_files=files, streaming=True), "parquet")


def test_stream__keeps_what_is_asked_for(here: Path, files: list[str]) -> None:
    module = ready("parquet", data_files=files, streaming=True, fields=Fields())
    file, said = sorted(module.manifest.root.iterdir(), reverse=True)
    assert file.name == "train-00000.parquet"
    assert json.loads(said.read_text())["data_files"] == files
    table = pq.read_table(file)
    assert table.column_names == ["image", "label"]
    # other fields need other columns, and do not meet these
    assert ready("parquet", data_files=files, streaming=True).manifest.root != file.parent


def test_stream__many_files_and_row_groups(here: Path, files: list[str]) -> None:
    from datasets import load_dataset

    stream = load_dataset("parquet", data_files=files, split="train", streaming=True).decode(False)
    small = {"group_bytes": 1, "file_groups": 1}
    save_stream(stream, "train", here, image=None, fields=["label"], source="parquet", **small)
    names = ["train-00000.parquet", "train-00001.parquet"]
    tables = [pq.read_table(here / name) for name in names]
    assert [row["bytes"] for table in tables for row in table["image"].to_pylist()] == IMAGES
    assert read_bytes(here / f"{names[1]}::image/0") == IMAGES[len(tables[0])]


def test_stream__splits_keep_their_roles(here: Path) -> None:
    for name, first in (("train", 0), ("validation", 12)):
        pack_parquet(here / "set" / f"{name}.parquet", table().slice(first, 12))
    modules = [ready("set", streaming=streaming) for streaming in (False, True)]
    for module in modules:
        assert module.manifest.frame["split"].value_counts().to_dict() == {
            "train": 10,
            "test": 8,
            "val": 2,
        }


def test_stream__that_breaks_off_is_not_there(here: Path, files: list[str]) -> None:
    whole = Path(files[1]).read_bytes()
    Path(files[1]).write_bytes(b"PAR1" + b"\0" * 200)
    with pytest.raises(DataError, match=r"parquet: its stream broke off \(.*\); try again") as err:
        ready("parquet", data_files=files, streaming=True)
    assert "\n" not in str(err.value)
    assert list((here / "cache").glob("parquet-*")) == []
    Path(files[1]).write_bytes(whole)
    check(ready("parquet", data_files=files, streaming=True), "parquet")


def test_stream__not_prepared(here: Path) -> None:
    with pytest.raises(DataError, match="the stream was not read yet; call prepare_data"):
        HuggingFace("parquet", streaming=True).scan()


def test_stream__manifest_is_read_again(here: Path, files: list[str]) -> None:
    first = ready("parquet", data_files=files, streaming=True)
    moved = first.manifest.root.rename(here / "moved")
    module = ImageDataModule(ManifestFile(first.split_file, moved), crop=CROP, batch_size=3)
    module.prepare_data()
    module.setup()
    found = pixels(module.predict_dataloader())
    assert all(torch.equal(a, b) for a, b in zip(found, WANTED, strict=True))


def test_stream__of_files_with_addresses_only(here: Path) -> None:
    for i, image in enumerate(IMAGES):
        file = here / "set" / ("real", "fake")[i % 2] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image)
    modules = [
        ready("imagefolder", data_files=["set/**"], fields=Fields(), streaming=streaming)
        for streaming in (False, True)
    ]
    for module in modules:
        paths = module.manifest.paths()
        assert sorted(map(read_bytes, paths)) == sorted(IMAGES)
        labels = {
            read_bytes(path): label
            for path, label in zip(paths, module.manifest.frame["label"], strict=True)
        }
        assert [labels[image] for image in IMAGES] == [0, 1] * 10


@pytest.mark.parametrize("streaming", [False, True])
def test_package__missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    source = HuggingFace("someone/set", streaming=streaming, cache_dir=str(tmp_path))
    module = ImageDataModule(source, crop=CROP)
    message = r'someone/set: needs Hugging Face\'s datasets; pip install "dfl\[hf\]"'
    with pytest.raises(ConfigError, match=message) as caught:
        module.prepare_data()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": "picture"}, "no column 'picture'; it has image, label, model"),
        ({"fields": Fields("class")}, "no column 'class'; it has image, label, model"),
        ({"fields": Fields("image.x")}, "has no 'x'"),
        (
            {"fields": Fields(real=["photo"])},
            "its label 'real' is neither a real value .photo.",
        ),
        ({"splits": ["test"]}, "parquet: has no split 'test'; it has train"),
    ],
)
def test_errors__named(
    here: Path, files: list[str], settings: dict[str, object], message: str, streaming: bool
) -> None:
    with pytest.raises(DataError, match=message):
        ready("parquet", data_files=files, streaming=streaming, **settings)


def test_load__not_there(here: Path) -> None:
    with pytest.raises(DataError, match="nobody/nothing: cannot be loaded") as caught:
        ready("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_saved__damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_to_disk(tmp_path / "saved", table())
    (tmp_path / "saved" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match=r"state.json: names a file that is missing .data-00001"):
        ready("saved")
    (tmp_path / "saved" / "state.json").write_text("{")
    with pytest.raises(DataError, match=r"state.json: not written by save_to_disk"):
        ready("saved")


def test_saved__splits_that_are_classes_are_sides_of_a_pair(tmp_path: Path) -> None:
    for name in ("Real", "AI"):
        save_to_disk(tmp_path / "set" / name, image_table([png(i) for i in range(4)]))
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["Real", "AI"]}')
    source = HuggingFace(str(tmp_path / "set"), fields=Fields(None))
    with pytest.raises(DataError, match=r"Pairs with root: .*/set, and real: Real, fake: AI$"):
        source.scan()
    pairs = Pairs(tmp_path / "set", {"set": Pair("Real", "AI")}).scan().frame
    assert pairs["label"].tolist() == [0] * 4 + [1] * 4
