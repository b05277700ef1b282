import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from dfl.data import CenterCrop, Fields, HuggingFaceDataModule, ManifestDataModule
from dfl.data.containers.base import ContainerError
from dfl.data.containers.content import content_hash, is_there, read_bytes
from dfl.data.containers.hub import fetch
from dfl.data.containers.stream import StreamFile
from dfl.data.images.decode import decode_bytes
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
    import datasets

    monkeypatch.chdir(tmp_path)
    datasets.disable_progress_bars()
    yield tmp_path
    datasets.enable_progress_bars()


def ready(path: str, **settings: object) -> HuggingFaceDataModule:
    settings = {"crop": CROP, "fields": FIELDS, "batch_size": 3, "cache_dir": "cache", **settings}
    module = HuggingFaceDataModule(path, **settings)
    module.prepare_data()
    module.setup()
    return module


def pixels(loader: DataLoader) -> list[torch.Tensor]:
    return [image for batch in loader for image in batch["image"]]


WANTED = [CROP(decode_bytes(image)) for image in IMAGES]


def check(module: HuggingFaceDataModule, name: str) -> None:
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
    again = ready(str(tmp_path / "saved"), split_dir="other")
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
    module = ready("saved", fields=None)
    frame = module.manifest.frame
    assert frame["label"].tolist() == [1, 0] * 10
    assert set(frame["split"][8:]) == {"test"}  # held out, and there is no other test
    assert [read_bytes(path) for path in module.manifest.paths()] == IMAGES
    one = ready("saved", fields=None, splits=["train"]).manifest.frame
    assert len(one) == 8
    assert set(one["split"]) == {"train", "test", "val"} or set(one["split"]) == {"train", "test"}


def test_library__downloads_once(here: Path, files: list[str]) -> None:
    module = ready("parquet", data_files=files, num_workers=2, name="set")
    check(module, "set")
    assert set(module.manifest.frame["dataset"]) == {"set"}
    assert len(pixels(module.train_dataloader())) == 14
    module = ready(str(Path(files[0]).parent))
    check(module, "set")


def test_stream__same_rows_in_any_worker(here: Path, files: list[str]) -> None:
    whole = ready("parquet", data_files=files)
    for workers in (0, 2):
        settings = {"split_dir": f"s{workers}", "num_workers": workers, "streaming": True}
        module = ready("parquet", data_files=files, **settings)
        check(module, "parquet")
        columns = ["label", "dataset", "generator", "split", "group"]
        assert module.manifest.frame[columns].equals(whole.manifest.frame[columns])
    hashes = [content_hash(path) for path in module.manifest.paths()]
    assert hashes == [content_hash(path) for path in whole.manifest.paths()]


def test_stream__any_order(here: Path, files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    module = ready("parquet", data_files=files, streaming=True)
    name = next(here.glob("splits/*.hf.json"))
    for held in (1, 4, 96):
        monkeypatch.setattr("dfl.data.containers.stream.HELD_ROWS", held)
        stream = StreamFile(name)
        for row in [*range(COUNT), 3, 19, 12, 11, 0, 5, 4, 13]:
            assert stream.read(f"image/{row}") == IMAGES[row]
    assert not is_there(Path(f"{name}::image/{COUNT}"))
    assert is_there(module.manifest.paths()[-1])


def test_stream__is_not_trained_on(here: Path, files: list[str]) -> None:
    module = ready("parquet", data_files=files, streaming=True)
    with pytest.raises(ConfigError, match="cannot be shuffled for training; extract its features"):
        module.train_dataloader()


def test_stream__manifest_is_read_again(here: Path, files: list[str]) -> None:
    split_file = ready("parquet", data_files=files, streaming=True).split_file
    (here / "splits").rename(here / "moved")
    module = ManifestDataModule(here / "moved" / split_file.name, crop=CROP, batch_size=3)
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
        ready("imagefolder", data_files=["set/**"], fields=None, streaming=streaming)
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


def test_stream__changed_behind_its_description(here: Path, files: list[str]) -> None:
    module = ready("parquet", data_files=files, streaming=True)
    pack_parquet(Path(files[1]), table(IMAGES[:3]))
    with pytest.raises(DataError, match=r"ends before row 15; it has changed, so delete this file"):
        read_bytes(module.manifest.paths()[15])


def test_stream__damaged_description(tmp_path: Path) -> None:
    (tmp_path / "x.hf.json").write_text(json.dumps({"path": "parquet"}))
    with pytest.raises(DataError, match=r"x.hf.json: describes no stream; delete it and the split"):
        read_bytes(tmp_path / "x.hf.json::image/0")


@pytest.mark.parametrize("streaming", [False, True])
def test_package__missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    module = HuggingFaceDataModule("someone/set", crop=CROP, streaming=streaming)
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


def test_stream__one_failed_fetch_spoils_no_other_row(
    here: Path, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ready("parquet", data_files=files, streaming=True)
    failing = iter([False, False, True])

    def fetched(cell: object, path: Path, member: str) -> bytes:
        if next(failing, False):
            raise ContainerError(f"{path}: 503")
        return fetch(cell, path, member)

    monkeypatch.setattr("dfl.data.containers.stream.fetch", fetched)
    stream = StreamFile(next(here.glob("splits/*.hf.json")))
    found: list[bytes | None] = []
    for row in range(COUNT):
        try:
            found.append(stream.read(f"image/{row}"))
        except ContainerError:
            found.append(None)
    assert found == [*IMAGES[:2], None, *IMAGES[3:]]
    assert len(module.manifest) == COUNT
