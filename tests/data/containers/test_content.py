import multiprocessing
import os
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dfl.data.containers import content
from dfl.data.containers.base import ContainerError, order_of, place_of
from dfl.data.containers.content import content_hash, is_there, read_bytes, size_of
from dfl.data.containers.registry import OpenContainers
from dfl.data.containers.tables import ParquetFile
from dfl.data.images.decode import UnreadableImageError, decode, decode_bytes
from dfl.data.manifest.duplicates import find_identical
from dfl.data.manifest.manifest import Manifest
from dfl.errors import ManifestError
from tests.data.packing import image_table, pack_arrow, pack_parquet, pack_tar, png

COUNT = 23
IMAGES = [png(seed) for seed in range(COUNT)]


def places(folder: Path) -> dict[str, list[Path]]:
    """The same images in containers of all kinds, and in files."""
    table = image_table(IMAGES, raw=pa.array(IMAGES, pa.large_binary()))
    pack_tar(folder / "a.tar", {f"./sub/{i}.png": image for i, image in enumerate(IMAGES)})
    pack_parquet(folder / "p.parquet", table)
    pack_arrow(folder / "s.arrow", table)
    for i, image in enumerate(IMAGES):
        (folder / f"{i}.png").write_bytes(image)
    patterns = {
        "file": "{}.png",
        "tar": "a.tar::sub/{}.png",
        "parquet": "p.parquet::image/{}",
        "parquet bytes": "p.parquet::raw/{}",
        "arrow": "s.arrow::image/{}",
        "arrow bytes": "s.arrow::raw/{}",
    }
    return {
        kind: [folder / pattern.format(i) for i in range(COUNT)]
        for kind, pattern in patterns.items()
    }


KINDS = ("file", "tar", "parquet", "parquet bytes", "arrow", "arrow bytes")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    return places(tmp_path_factory.mktemp("packed"))


@pytest.mark.parametrize("kind", KINDS)
def test_read__any_order(packed: dict[str, list[Path]], kind: str) -> None:
    order = [*range(COUNT), *random.Random(0).choices(range(COUNT), k=50)]
    for i in order:
        assert read_bytes(packed[kind][i]) == IMAGES[i]


def test_read__large_row_groups(packed: dict[str, list[Path]]) -> None:
    file = packed["file"][0].with_name("p.parquet")
    opened = ParquetFile(file, group_bytes=10, batch_rows=1)
    for i in [*range(COUNT), 3, 22, 21, 20, 16, 0, 1]:
        assert opened.read(f"image/{i}") == IMAGES[i]


@pytest.mark.parametrize("kind", KINDS)
def test_hash_and_size__of_the_image_itself(packed: dict[str, list[Path]], kind: str) -> None:
    assert content_hash(packed[kind][5]) == sha256(IMAGES[5]).hexdigest()
    assert size_of(packed[kind][5]) == len(IMAGES[5])
    assert is_there(packed[kind][5])


def test_hash__read_once_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = places(tmp_path)["parquet"][4]
    first = content_hash(path)
    monkeypatch.setattr(content, "read_bytes", lambda path: pytest.fail("read again"))
    assert content_hash(path) == first
    assert size_of(path) == len(IMAGES[4])


def test_hash__container_changed(tmp_path: Path) -> None:
    file = pack_parquet(tmp_path / "p.parquet", image_table(IMAGES[:5]))
    assert content_hash(tmp_path / "p.parquet::image/0") == sha256(IMAGES[0]).hexdigest()
    pack_parquet(file, image_table(IMAGES[7:]))
    os.utime(file, ns=(1, 1))
    assert content_hash(tmp_path / "p.parquet::image/0") == sha256(IMAGES[7]).hexdigest()


@pytest.mark.parametrize(
    "path",
    [
        "a.tar::sub/99.png",
        "a.tar::99.png",
        "p.parquet::image/23",
        "p.parquet::images/1",
        "p.parquet::image/01",
        "p.parquet::image/x",
        "p.parquet::1",
        "s.arrow::raw/-1",
        "no.tar::x",
    ],
)
def test_read__no_such_place(packed: dict[str, list[Path]], path: str) -> None:
    folder = packed["file"][0].parent
    assert not is_there(folder / path)
    with pytest.raises(FileNotFoundError):
        read_bytes(folder / path)
    with pytest.raises(UnreadableImageError, match="no such image; restore it or remove its row"):
        decode(folder / path)


def test_place__files_with_colons_are_files(tmp_path: Path) -> None:
    assert place_of("a::b.png") is None
    assert place_of("x.tar.gz::b.png") is None
    assert place_of("d/a.tar::x::y.png") == (Path("d/a.tar"), "x::y.png")
    (tmp_path / "a::b.png").write_bytes(IMAGES[0])
    assert read_bytes(tmp_path / "a::b.png") == IMAGES[0]


def test_order__rows_by_number() -> None:
    paths = ["b.parquet::image/9", "a/2.png", "b.parquet::image/10", "a/10.png"]
    assert sorted(paths, key=order_of) == ["a/10.png", "a/2.png", *(paths[0], paths[2])]


@pytest.mark.parametrize("kind", KINDS)
def test_decode__same_pixels(packed: dict[str, list[Path]], kind: str) -> None:
    assert torch.equal(decode(packed[kind][3]), decode_bytes(IMAGES[3]))


@pytest.mark.parametrize("kind", ["tar", "parquet", "arrow"])
def test_decode__error_names_the_place(tmp_path: Path, kind: str) -> None:
    pack_tar(tmp_path / "a.tar", {"x/0.png": b"none"})
    pack_parquet(tmp_path / "p.parquet", image_table([b"none"]))
    pack_arrow(tmp_path / "s.arrow", image_table([b"none"]))
    inner = {"tar": "a.tar::x/0.png", "parquet": "p.parquet::image/0", "arrow": "s.arrow::image/0"}
    with pytest.raises(UnreadableImageError, match=f"{inner[kind]}: is text"):
        decode(tmp_path / inner[kind])


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_read__row_without_image(tmp_path: Path, kind: str) -> None:
    table = image_table([IMAGES[0], None], label=[0, 1])
    pack_parquet(tmp_path / "t.parquet", table)
    pack_arrow(tmp_path / "t.arrow", table)
    with pytest.raises(ContainerError, match=rf"t.{kind}::image/1: the row has no image"):
        read_bytes(tmp_path / f"t.{kind}::image/1")
    with pytest.raises(ContainerError, match=r"label/1: holds int, no image; name another column"):
        read_bytes(tmp_path / f"t.{kind}::label/1")


def test_read__file_beside_a_table(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(IMAGES[1])
    cells = pa.array([{"bytes": None, "path": "x.png"}, {"bytes": None, "path": "y.png"}])
    pq.write_table(pa.table({"image": cells}), tmp_path / "p.parquet")
    assert read_bytes(tmp_path / "p.parquet::image/0") == IMAGES[1]
    with pytest.raises(UnreadableImageError, match="no such image"):
        decode(tmp_path / "p.parquet::image/1")


@pytest.mark.parametrize("name", ["a.tar", "p.parquet", "s.arrow"])
def test_read__cut_container(tmp_path: Path, name: str) -> None:
    places(tmp_path)
    inside = {"a.tar": "sub/1.png", "p.parquet": "image/1", "s.arrow": "image/1"}[name]
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ContainerError, match=rf"{name}: .*restore") as caught:
        read_bytes(tmp_path / f"{name}::{inside}")
    assert "\n" not in str(caught.value)
    with pytest.raises(UnreadableImageError, match=rf"{name}: .*restore"):
        decode(tmp_path / f"{name}::{inside}")


@pytest.mark.parametrize("kind", KINDS)
def test_read__threads(packed: dict[str, list[Path]], kind: str) -> None:
    order = random.Random(1).choices(range(COUNT), k=200)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: read_bytes(packed[kind][i]), order))
    assert found == [IMAGES[i] for i in order]


def _hashes(paths: list[Path]) -> list[str]:
    return [sha256(read_bytes(path)).hexdigest() for path in paths]


def test_read__forked_processes(packed: dict[str, list[Path]]) -> None:
    paths = [path for kind in KINDS for path in packed[kind]]
    _hashes(paths)  # everything is open in this process
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(_hashes, [paths[::2], paths[1::2]], chunksize=1)
    assert found == [_hashes(paths[::2]), _hashes(paths[1::2])]


def test_identical__across_containers(packed: dict[str, list[Path]]) -> None:
    files = [packed[kind][i] for i in (2, 5) for kind in KINDS]
    assert find_identical([*files, packed["tar"][9]]) == [[*range(6)], [*range(6, 12)]]


def test_manifest__places_are_read_again(tmp_path: Path) -> None:
    found = places(tmp_path / "data")
    rows = [
        {"path": path.relative_to(tmp_path / "data").as_posix(), "label": 0, "dataset": kind}
        | {"generator": "real", "split": "", "group": kind}
        for kind in KINDS
        for path in found[kind]
    ]
    Manifest.from_rows(rows, tmp_path / "data").write(tmp_path / "data" / "m.csv")
    shutil.move(tmp_path / "data", tmp_path / "moved")
    manifest = Manifest.read(tmp_path / "moved" / "m.csv")
    assert [read_bytes(path) for path in manifest.paths()] == IMAGES * len(KINDS)
    gone = [*rows, {**rows[-1], "path": "p.parquet::image/23"}, {**rows[-1], "path": "b.tar::x"}]
    with pytest.raises(ManifestError, match=r"2 of 140 images are missing.*p.parquet::image/23"):
        Manifest.from_rows(gone, tmp_path / "moved").validate()


def test_open__least_recently_used_are_closed(tmp_path: Path) -> None:
    opened = OpenContainers(2)
    paths = [pack_tar(tmp_path / f"{name}.tar", {"x.png": IMAGES[0]}) for name in "abc"]
    first, second, _ = [opened.open(path) for path in paths]
    assert opened.open(paths[1]) is second
    assert opened.open(paths[0]) is not first
