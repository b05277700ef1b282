import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from dfl.data import (
    CenterCrop,
    Fields,
    ImageDataModule,
    Manifest,
    ManifestFile,
    Parquet,
    Source,
    Splits,
    WebDataset,
)
from dfl.data.containers.content import content_hash
from dfl.data.images.decode import decode_bytes
from dfl.data.sources.packed import find_files
from dfl.errors import DataError, ManifestError
from tests.data.packing import image_table, noted, pack_parquet, pack_tar, png

CROP = CenterCrop(8)
COUNT = 20
IMAGES = [png(seed) for seed in range(COUNT)]


def parquet_root(folder: Path, **columns: list[object]) -> Path:
    table = image_table(IMAGES, **(columns or {"label": [i % 2 for i in range(COUNT)]}))
    pack_parquet(folder / "part-0.parquet", table.slice(0, 12))
    pack_parquet(folder / "part-1.parquet", table.slice(12))
    return folder


def samples(first: int, last: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for i in range(first, last):
        files[f"d/{i:03}.png"] = IMAGES[i]
        files[f"d/{i:03}.cls"] = f"{i % 2}\n".encode()
        facts = {"scene": i // 2, "model": {"name": f"m{i % 3}"}}
        files[f"d/{i:03}.json"] = json.dumps(facts).encode()
    return files


def tar_root(folder: Path) -> Path:
    pack_tar(folder / "shard-000.tar", samples(0, 12))
    pack_tar(folder / "shard-001.tar", samples(12, COUNT))
    return folder


def ready(source: Source, folder: Path, **settings: object) -> ImageDataModule:
    settings = {"crop": CROP, "splits": Splits(folder=folder), "batch_size": 3, **settings}
    module = ImageDataModule(source, **settings)
    module.prepare_data()
    module.setup()
    return module


def pixels(loader: DataLoader) -> dict[str, torch.Tensor]:
    return {
        path: image
        for batch in loader
        for path, image in zip(batch["path"], batch["image"], strict=True)
    }


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [Parquet, WebDataset])
def test_images__in_any_worker(kind: type[Source], tmp_path: Path, workers: int) -> None:
    root = tmp_path / "set"
    module = ready(kind(parquet_root(tar_root(root))), tmp_path / "splits", num_workers=workers)
    frame = module.manifest.frame
    assert frame["label"].tolist() == [i % 2 for i in range(COUNT)]
    assert frame["generator"].tolist() == ["real", "set"] * 10
    assert frame["split"].value_counts().to_dict() == {"train": 14, "test": 4, "val": 2}
    found = pixels(module.predict_dataloader())
    wanted = [CROP(decode_bytes(image)) for image in IMAGES]
    assert list(found) == frame["path"].tolist()
    assert all(torch.equal(a, b) for a, b in zip(found.values(), wanted, strict=True))
    train = pixels(module.train_dataloader())
    assert set(train) == set(frame["path"][frame["split"] == "train"])
    assert all(torch.equal(found[path], train[path]) for path in train)


def test_parquet__fields(tmp_path: Path) -> None:
    columns = {
        "label": pa.array([2 + i % 2 for i in range(COUNT)], pa.int8()),
        "model": pa.array([f"m{i % 3}" for i in range(COUNT)]).dictionary_encode(),
        "meta": [{"scene": i // 4} for i in range(COUNT)],
    }
    fields = Fields(real=[2], fake=[3], generator="model", group="meta.scene")
    root = parquet_root(tmp_path / "set", **columns)
    frame = ready(Parquet(root, fields=fields), tmp_path / "s").manifest.frame
    assert frame["path"][13] == "part-1.parquet::image/1"
    assert frame["generator"].tolist()[:4] == ["real", "m1", "real", "m0"]
    assert frame["group"].tolist() == [f":{i // 4}" for i in range(COUNT)]
    assert (frame.groupby("group")["split"].nunique() == 1).all()


def test_parquet__names_of_classes_and_files(tmp_path: Path) -> None:
    table = image_table(IMAGES, label=[i % 2 for i in range(COUNT)])
    classes = {"_type": "ClassLabel", "names": ["sdxl", "photographer"]}
    pack_parquet(tmp_path / "set" / "a.parquet", noted(table, label=classes))
    fields = Fields(real=["photographer"], fake=["sdxl"], group=r"image.path: (scene\d+)_")
    frame = ready(Parquet(tmp_path / "set", fields=fields), tmp_path / "s").manifest.frame
    assert frame["label"].tolist() == [1, 0] * 10
    assert frame["group"][3] == ":scene1"
    # The number 0 stands for "sdxl": it must not pass for the usual 0 of real images.
    with pytest.raises(DataError, match=r"its label 'sdxl', .* are neither a real value"):
        ready(Parquet(tmp_path / "set"), tmp_path / "s")
    pack_parquet(
        tmp_path / "words" / "a.parquet", noted(table, label=classes | {"names": ["AI", "Human"]})
    )
    frame = ready(Parquet(tmp_path / "words"), tmp_path / "s").manifest.frame
    assert frame["label"].tolist() == [1, 0] * 10


def test_parquet__columns_that_say_by_their_names_what_they_are(tmp_path: Path) -> None:
    parts = ["train", "valid", "test", ""]
    columns: dict[str, list[object]] = {
        "label": [i % 2 for i in range(COUNT)],
        "model_name": [f"m{i % 3}" for i in range(COUNT)],
        "subset": [parts[i // 2 % 4] for i in range(COUNT)],
    }
    source = Parquet(parquet_root(tmp_path / "a", **columns))
    found = source.scan()
    assert found.frame["generator"].tolist()[:4] == ["real", "m1", "real", "m0"]
    assert found.frame["split"].tolist()[:8] == [
        *["train"] * 2,
        *["val"] * 2,
        *["test"] * 2,
        "",
        "",
    ]
    said = "generator from 'model_name', split from 'subset' (val = 'valid')"
    assert found.notes[0] == f"a: label from 'label' (real = '0', fake = '1'), {said}"
    # what says something else is left alone, and so is what could be meant by several columns
    columns |= {"subset": ["a"] * COUNT, "model": columns["model_name"]}
    other = Parquet(parquet_root(tmp_path / "b", **columns)).scan().frame
    assert set(other["split"]) == {""}
    assert set(other["generator"]) == {"real", "b"}
    chosen = Parquet(tmp_path / "b", fields=Fields(generator="subset")).scan().frame
    assert set(chosen["generator"]) == {"real", "a"}


def test_webdataset__fields(tmp_path: Path) -> None:
    fields = Fields("cls", generator="json.model.name", group="json.scene")
    module = ready(WebDataset(tar_root(tmp_path / "set"), fields=fields), tmp_path / "s")
    frame = module.manifest.frame
    assert frame["path"][12] == "shard-001.tar::d/012.png"
    assert frame["generator"].tolist()[:4] == ["real", "m1", "real", "m0"]
    assert frame["group"].tolist()[:3] == [":0", ":0", ":1"]


@pytest.mark.parametrize("kind", [Parquet, WebDataset])
def test_groups__split_alike_whatever_the_root_is_called(
    tmp_path: Path, kind: type[Source]
) -> None:
    tables = []
    for name in ("a", "b"):
        tar_root(tmp_path / name)
        scenes: list[object] = [{"scene": i // 2} for i in range(COUNT)]
        parquet_root(tmp_path / name, cls=[i % 2 for i in range(COUNT)], json=scenes)
        fields = Fields("cls", group="json.scene")
        frame = ready(kind(tmp_path / name, fields=fields), tmp_path / "s").manifest.frame
        assert frame["dataset"].unique().tolist() == [name]
        tables.append(frame[["path", "group", "split"]])
    assert tables[0].equals(tables[1])
    named = ready(kind(tmp_path / "a", fields=fields, name="x"), tmp_path / "s").manifest.frame
    assert named["group"][0] == "x:0"


def test_parquet__a_group_is_shared_by_the_datasets_of_a_table(tmp_path: Path) -> None:
    columns = {
        "label": [1] * COUNT,
        "model": [f"m{i // 10}" for i in range(COUNT)],
        "prompt": [f"p{i % 10}" for i in range(COUNT)],
    }
    fields = Fields(dataset="model", generator="model", group="prompt")
    source = Parquet(parquet_root(tmp_path / "set", **columns), fields=fields)
    frame = ready(source, tmp_path / "s").manifest.frame
    assert set(frame["dataset"]) == {"m0", "m1"}
    assert frame["group"].nunique() == 10
    assert (frame.groupby("group")["split"].nunique() == 1).all()


def test_webdataset__class_by_name_of_shard(tmp_path: Path) -> None:
    for i, name in enumerate(["real-0", "real-1", "sdxl-0", "flux-0"]):
        files = {f"{j}.png": IMAGES[5 * i + j] for j in range(5)}
        pack_tar(tmp_path / "set" / f"{name}.tar", files)
    fields = Fields("__file__", ["real-*"], ["*"], generator=r"__file__: (\w+)-")
    module = ready(WebDataset(tmp_path / "set", fields=fields), tmp_path / "s")
    counts = module.manifest.frame["generator"].value_counts().to_dict()
    assert counts == {"real": 10, "sdxl": 5, "flux": 5}


def test_webdataset__two_images_a_key(tmp_path: Path) -> None:
    files = {"0.jpg": IMAGES[0], "0.png": IMAGES[1], "0.cls": b"0", "1.mask.png": IMAGES[3]}
    files |= {"1.jpg": IMAGES[2], "1.cls": b"1", ".DS_Store": b"", "__MACOSX/0.jpg": b""}
    pack_tar(tmp_path / "set" / "a.tar", files)
    source = WebDataset(tmp_path / "set")
    message = r"a.tar::0: has 2 images among its endings \(jpg, png, cls\); .* with image"
    with pytest.raises(DataError, match=message):
        source.scan()
    module = ready(WebDataset(tmp_path / "set", image="jpg"), tmp_path / "s")
    assert module.manifest.frame["path"].tolist() == ["a.tar::0.jpg", "a.tar::1.jpg"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"0.cls": b"0"}, r"a.tar::0: has 0 images among its endings \(cls\)"),
        ({"0.png": b"x"}, r"a.tar::0: no field 'cls'; it has __key__, png"),
        ({"0.png": b"x", "0.cls": b"\xff"}, r"a.tar::0.cls: cannot be read \(.*utf-8"),
        ({"0.png": b"x", "0.cls": b"2"}, r"a.tar::0.png: its cls '2' is neither"),
    ],
)
def test_webdataset__errors(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    pack_tar(tmp_path / "set" / "a.tar", files)
    with pytest.raises(DataError, match=message):
        WebDataset(tmp_path / "set").scan()


def test_webdataset__json_without_the_key(tmp_path: Path) -> None:
    pack_tar(tmp_path / "set" / "a.tar", {"0.png": IMAGES[0], "0.json": b'{"kind": 1}'})
    source = WebDataset(tmp_path / "set", fields=Fields("json.label"))
    with pytest.raises(DataError, match=r"a.tar::0.json: no 'label' in it .* it has kind"):
        source.scan()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": "picture"}, r"part-0.parquet: no column 'picture'; it has image, label"),
        ({"image": "label"}, r"column 'label' is int64 and holds no images; .* can: image"),
        ({"fields": Fields("class")}, r"no column 'class'; it has image, label"),
        ({"fields": Fields("image.x")}, r"column 'image' is struct.* and has no 'x'"),
        ({"files": ["x*.parquet"]}, r"x\*.parquet: no such file; files are looked for under"),
        ({"files": ["/x.parquet"]}, r"/x.parquet: must be under the root"),
    ],
)
def test_parquet__errors(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    source = Parquet(parquet_root(tmp_path / "set"), **settings)
    with pytest.raises(DataError, match=message):
        source.scan()


def test_parquet__columns_of_images_not_one(tmp_path: Path) -> None:
    table = pa.table({"a": IMAGES, "b": IMAGES, "label": [0] * COUNT})
    pack_parquet(tmp_path / "two" / "a.parquet", table)
    pack_parquet(tmp_path / "none" / "a.parquet", table.select(["label"]))
    with pytest.raises(DataError, match="must have one column of images, has a, b; name it with"):
        Parquet(tmp_path / "two").scan()
    with pytest.raises(DataError, match="must have one column of images, has none; it has label"):
        Parquet(tmp_path / "none").scan()


@pytest.mark.parametrize("bad", [None, b"broken"])
def test_unreadable__named_or_left_out(tmp_path: Path, bad: bytes | None) -> None:
    images = [*IMAGES[:7], bad, *IMAGES[8:]]
    labels = [i % 2 for i in range(COUNT)]
    pack_parquet(tmp_path / "set" / "a.parquet", image_table(images, label=labels))
    if bad is None:
        with pytest.raises(DataError, match=r"a.parquet::image/7: the row has no image"):
            ready(Parquet(tmp_path / "set"), tmp_path / "s")
    settings = {"on_unreadable": "skip"}
    module = ready(Parquet(tmp_path / "set"), tmp_path / "s", **settings)
    assert len(module.manifest) == COUNT - 1
    assert "a.parquet::image/7," in module.unreadable_file.read_text()


def test_identical__one_group_and_never_two_sides(tmp_path: Path) -> None:
    images = [*IMAGES[:18], IMAGES[0], IMAGES[0]]
    labels = [i % 2 for i in range(COUNT - 1)]
    same = image_table(images[:19], label=labels)
    pack_parquet(tmp_path / "set" / "a.parquet", same)
    frame = ready(Parquet(tmp_path / "set"), tmp_path / "s").manifest.frame
    assert frame["group"][18] == frame["group"][0]
    pack_parquet(tmp_path / "set" / "b.parquet", image_table([IMAGES[0]], label=[1]))
    with pytest.raises(
        ManifestError, match=r"a.parquet::image/0 \(real\) and .*b.parquet::image/0"
    ):
        ready(Parquet(tmp_path / "set"), tmp_path / "s1")


@pytest.mark.parametrize("kind", [Parquet, WebDataset])
def test_moved__same_rows_and_hashes(kind: type[Source], tmp_path: Path) -> None:
    root = parquet_root(tar_root(tmp_path / "here" / "set"))
    first = ready(kind(root), tmp_path / "s0").manifest
    hashes = [content_hash(path) for path in first.paths()]
    shutil.move(tmp_path / "here", tmp_path / "there")
    second = ready(kind(tmp_path / "there" / "set"), tmp_path / "s1").manifest
    assert second.frame.equals(first.frame)
    assert [content_hash(path) for path in second.paths()] == hashes


def test_written_manifest__is_a_data_module_again(tmp_path: Path) -> None:
    root = tar_root(parquet_root(tmp_path / "set"))
    modules = [ready(kind(root), tmp_path) for kind in (Parquet, WebDataset)]
    frames = [modules[0].manifest.frame.head(10), modules[1].manifest.frame.tail(10)]
    rows = [row for frame in frames for row in frame.to_dict("records")]
    Manifest.from_rows(rows, root).write(root / "both.csv")
    module = ready(ManifestFile(root / "both.csv"), tmp_path / "s")
    found = pixels(module.predict_dataloader())
    wanted = [CROP(decode_bytes(image)) for image in IMAGES]
    assert all(torch.equal(a, b) for a, b in zip(found.values(), wanted, strict=True))


def test_changed_container__is_noticed(tmp_path: Path) -> None:
    root = parquet_root(tmp_path / "set")
    ready(Parquet(root), tmp_path / "s")
    (root / "part-1.parquet").unlink()
    with pytest.raises(DataError, match="was written for other images: 0 are new and 8 are gone"):
        ready(Parquet(root), tmp_path / "s")


def test_changed_rows__are_noticed(tmp_path: Path) -> None:
    root = parquet_root(tmp_path / "set")
    ready(Parquet(root), tmp_path / "s")
    table = image_table(IMAGES[::-1], label=[(i + 1) % 2 for i in range(COUNT)])
    pack_parquet(root / "part-0.parquet", table.slice(0, 12))
    with pytest.raises(DataError, match="12 are new and 12 are gone; delete the file"):
        ready(Parquet(root), tmp_path / "s")


@pytest.mark.parametrize("pattern", ["**.parquet", ""])
def test_patterns__that_are_none(tmp_path: Path, pattern: str) -> None:
    pack_parquet(tmp_path / "a.parquet", image_table([png(0)]))
    with pytest.raises(DataError, match="is no pattern of file names"):
        find_files(tmp_path, [pattern])
