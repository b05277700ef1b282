from pathlib import Path

import pytest

from dfl.data import ImageSet, Pair, Pairs
from dfl.data.containers.content import read_bytes
from dfl.data.sources import image_sets
from dfl.data.sources.published import keep_published
from dfl.errors import ConfigError, DataError
from dfl.types import FAKE, REAL
from tests.data.packing import image_table, pack_parquet, pack_tar, png, save_to_disk


def scan_side(source: ImageSet, root: Path, label: int) -> list:
    found = image_sets.scan_side(source, root, label).frame
    frame, _ = keep_published(found.assign(dataset="set"), root)
    return list(frame.itertuples())


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize("path", ["set", "set/0_real", "./set/", "plain", "plain/../plain"])
def test_scan_side__takes_a_set_or_the_side_itself(tmp_path: Path, path: str) -> None:
    touch(tmp_path, "set/0_real/a.png", "set/0_real/cats/b.png", "set/1_fake/c.png")
    touch(tmp_path, "plain/a.png", "plain/cats/b.png")
    images = scan_side(ImageSet(path), tmp_path, REAL)
    place = "set/0_real" if "set" in path else "plain"
    assert [image.path for image in images] == [f"{place}/a.png", f"{place}/cats/b.png"]
    assert {(image.label, image.generator, image.split) for image in images} == {(REAL, "real", "")}
    assert [image.group for image in images] == [image.path for image in images]


@pytest.mark.parametrize(
    ("path", "generator", "expected"),
    [
        ("progan", None, "progan"),
        ("progan/cat/1_fake", None, "cat"),
        ("train/gan/1_fake", None, "gan"),
        ("progan", "ProGAN v1", "ProGAN v1"),
        ("genimage", None, "adm"),
    ],
)
def test_scan_side__generator(
    tmp_path: Path, path: str, generator: str | None, expected: str
) -> None:
    root = tmp_path / "root"
    touch(root, "progan/cat/1_fake/a.png", "genimage/adm/train/ai/b.png", "train/gan/1_fake/c.png")
    images = scan_side(ImageSet(path, generator), root, FAKE)
    assert {image.generator for image in images} == {expected}


def test_scan_side__generators_of_several_sets(tmp_path: Path) -> None:
    touch(tmp_path, *(f"genimage/{name}/train/ai/b.png" for name in ("adm", "glide")))
    images = scan_side(ImageSet("genimage"), tmp_path, FAKE)
    assert [(image.generator, image.split) for image in images] == [
        ("adm", "train"),
        ("glide", "train"),
    ]


def test_scan_side__the_root_is_the_set(tmp_path: Path) -> None:
    touch(tmp_path, "mine/1_fake/a.png")
    (image,) = scan_side(ImageSet("."), tmp_path / "mine", FAKE)
    assert (image.path, image.generator) == ("1_fake/a.png", "mine")


def test_scan_side__absolute_path_under_the_root(tmp_path: Path) -> None:
    touch(tmp_path, "root/set/0_real/a.png", "away/0_real/b.png")
    inside, outside = (
        scan_side(ImageSet(str(tmp_path / name)), tmp_path / "root", REAL)[0]
        for name in ("root/set", "away")
    )
    assert inside.path == "set/0_real/a.png"
    assert outside.path == f"{tmp_path}/away/0_real/b.png"


def test_scan_side__group_is_shared_by_the_sides_of_a_set(tmp_path: Path) -> None:
    touch(
        tmp_path, "p/0_real/f__1_real_B.png", "p/1_fake/f__1_fake_B.png", "q/1_fake/f__1_fake_B.png"
    )
    pattern = r"(.+)_(?:real|fake)_B"
    real = scan_side(ImageSet("p", group=pattern), tmp_path, REAL)[0].group
    fake = scan_side(ImageSet("p/1_fake", group=pattern), tmp_path, FAKE)[0].group
    other = scan_side(ImageSet("q", group=pattern), tmp_path, FAKE)[0].group
    assert real == fake == "p:f__1"
    assert other == "q:f__1"


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("(.+", ConfigError, "is no regular expression"),
        (".+", ConfigError, "has 0 capture groups; it must have one"),
        ("(a)(b)", ConfigError, "has 2 capture groups"),
        ("(.+)__", DataError, r"0_real/a\.png: the group pattern '\(\.\+\)__' captures nothing"),
    ],
)
def test_scan_side__bad_group(tmp_path: Path, pattern: str, error: type, message: str) -> None:
    touch(tmp_path, "set/0_real/a.png")
    with pytest.raises(error, match=message):
        scan_side(ImageSet("set", group=pattern), tmp_path, REAL)


def test_scan_side__side_is_missing(tmp_path: Path) -> None:
    touch(tmp_path, "set/0_real/a.png")
    with pytest.raises(DataError, match="set: holds no fake images; known layouts"):
        scan_side(ImageSet("set"), tmp_path, FAKE)


def test_scan_side__other_side_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "set/0_real/a.png")
    with pytest.raises(DataError, match="is the real side by its name, but stands as fake"):
        scan_side(ImageSet("set/0_real"), tmp_path, FAKE)


def _pack_side(root: Path, name: str, first: int) -> None:
    images = {f"x/scene{i // 2}_{i}.png": png(first + i) for i in range(6)}
    items = list(images.items())
    pack_tar(root / f"{name}.tar", items)
    pack_tar(root / f"{name}-0.tar", items[:4])
    pack_tar(root / f"{name}-1.tar", [*items[4:], ("notes.txt", b"")])
    pack_parquet(root / f"{name}.parquet", image_table(list(images.values())))
    save_to_disk(root / name / "saved", image_table(list(images.values())))
    pack_tar(root / name / "shards" / "0.tar", items)


@pytest.mark.parametrize(
    ("pattern", "generator"),
    [
        ("{}.tar", "ldm"),
        ("{}-*.tar", "ldm"),
        ("{}/shards", "shards"),
        ("{}/shards/*.tar", "shards"),
        ("{}.parquet", "ldm"),
        ("{}/saved", "saved"),
    ],
)
def test_side__packed(tmp_path: Path, pattern: str, generator: str) -> None:
    _pack_side(tmp_path, "ldm", 0)
    _pack_side(tmp_path, "photos", 50)
    group = r"(scene\d+)_"
    fakes = scan_side(ImageSet(pattern.format("ldm"), group=group), tmp_path, FAKE)
    assert [read_bytes(tmp_path / image.path) for image in fakes] == [png(i) for i in range(6)]
    assert {image.generator for image in fakes} == {generator}
    assert [image.group.rpartition(":")[2] for image in fakes] == [
        f"scene{i // 2}" for i in range(6)
    ]
    reals = scan_side(ImageSet(pattern.format("photos")), tmp_path, REAL)
    assert {(image.generator, image.label) for image in reals} == {("real", REAL)}
    assert [image.group for image in reals] == [image.path for image in reals]


def test_side__packed_at_the_root_is_called_as_the_root(tmp_path: Path) -> None:
    pack_tar(tmp_path / "ldm" / "0.tar", {"a.png": png(0)})
    (image,) = scan_side(ImageSet("*.tar"), tmp_path / "ldm", FAKE)
    assert image.generator == "ldm"


def test_pairs__rows_of_a_table_by_number(tmp_path: Path) -> None:
    pack_parquet(tmp_path / "a.parquet", image_table([png(i) for i in range(12)]))
    pack_tar(tmp_path / "b.tar", {f"{i:02}.png": png(20 + i) for i in range(12)})
    frame = Pairs(tmp_path, {"p": Pair("a.parquet", "b.tar")}).scan().frame
    assert frame["path"].tolist()[:12] == [f"a.parquet::image/{i}" for i in range(12)]
    assert frame["path"].tolist()[12:] == [f"b.tar::{i:02}.png" for i in range(12)]


def test_side__packed_errors(tmp_path: Path) -> None:
    pack_tar(tmp_path / "0_real" / "a.tar", {"notes.txt": b""})
    pack_parquet(tmp_path / "a.parquet", image_table([png(0)]).select(["image"]))
    with pytest.raises(DataError, match="0_real: holds no real images; name another source"):
        scan_side(ImageSet("0_real"), tmp_path, REAL)
    with pytest.raises(DataError, match="is the real side by its name"):
        scan_side(ImageSet("0_real"), tmp_path, FAKE)
    with pytest.raises(DataError, match=r"x\*.tar: no such file; files are looked for under"):
        scan_side(ImageSet("x*.tar"), tmp_path, REAL)
    with pytest.raises(DataError, match=r"x.tar: no such folder"):
        scan_side(ImageSet("x.tar"), tmp_path, REAL)
    with pytest.raises(DataError, match="captures nothing in its name"):
        scan_side(ImageSet("a.parquet", group=r"(s)x"), tmp_path, REAL)


def test_side__tar_with_both_sides_is_read_as_unpacked(tmp_path: Path) -> None:
    names = [
        f"biggan/{split}/{side}/{i}.png"
        for split in ("train", "val")
        for side in ("0_real", "1_fake")
        for i in range(2)
    ]
    pack_tar(tmp_path / "biggan.tar", {name: png(i) for i, name in enumerate(names)})
    for label, side in ((REAL, "0_real"), (FAKE, "1_fake")):
        found = scan_side(ImageSet("biggan.tar"), tmp_path, label)
        assert [image.path.partition("::")[2] for image in found] == [n for n in names if side in n]
        assert [image.split for image in found] == ["train"] * 2 + ["test"] * 2
    pack_tar(tmp_path / "mixed.tar", {"0_real/a.png": png(0), "b.png": png(1)})
    with pytest.raises(
        DataError, match=r"mixed.tar: has a layout's .* beside them \(mixed.tar::b.png"
    ):
        scan_side(ImageSet("mixed.tar"), tmp_path, REAL)
    pack_tar(tmp_path / "reals.tar", {"set/0_real/a.png": png(0)})
    with pytest.raises(DataError, match=r"reals.tar: holds no fake images"):
        scan_side(ImageSet("reals.tar"), tmp_path, FAKE)


def test_side__tar_and_folder_agree_on_what_is_an_image(tmp_path: Path) -> None:
    files = [
        "a.jfif",
        "b.JPE",
        "c.tga",
        "d",
        "e.png",
        "notes.txt",
        "f.json",
        "g.cls",
        ".hidden.png",
    ]
    touch(tmp_path, *(f"folder/{name}" for name in files))
    pack_tar(tmp_path / "ldm.tar", {name: png(0) for name in files})
    in_tar = scan_side(ImageSet("ldm.tar"), tmp_path, FAKE)
    in_folder = scan_side(ImageSet("folder"), tmp_path, FAKE)
    names = [[image.path[-6:] for image in found] for found in (in_tar, in_folder)]
    assert [name.rpartition("/")[2].rpartition(":")[2] for name in names[0]] == files[:5]
    assert len(names[0]) == len(names[1]) == 5


def test_scan_side__groups_are_the_same_wherever_a_set_lies(tmp_path: Path) -> None:
    groups = []
    for machine in ("m1", "m2"):
        touch(tmp_path / machine, "set/0_real/a.png", "set/0_real/b.png")
        source = ImageSet(str(tmp_path / machine / "set"))
        groups.append([image.group for image in scan_side(source, tmp_path / "root", REAL)])
    assert groups == [["set/0_real/a.png", "set/0_real/b.png"]] * 2
