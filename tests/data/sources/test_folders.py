import os
from pathlib import Path

import pytest

from dfl.data import Folder, Tree, assign_splits
from dfl.data.sources.layouts import list_images
from dfl.errors import DataError
from dfl.types import FAKE, REAL, UNKNOWN


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def tree_of(root: Path) -> set[tuple[str, int, str, str, str]]:
    frame = Tree(root).scan().frame
    return set(
        frame[["path", "label", "dataset", "generator", "split"]].itertuples(index=False, name=None)
    )


def test_tree__universal_fake_detect(tmp_path: Path) -> None:
    touch(tmp_path, "laion/0_real/a.jpg", "ldm_100/1_fake/b.png")
    touch(
        tmp_path,
        "progan/airplane/0_real/c.png",
        "progan/airplane/1_fake/d.png",
        "progan/cat/0_real/e.png",
    )
    assert tree_of(tmp_path) == {
        ("laion/0_real/a.jpg", REAL, "laion", "real", ""),
        ("ldm_100/1_fake/b.png", FAKE, "ldm_100", "ldm_100", ""),
        ("progan/airplane/0_real/c.png", REAL, "progan", "real", ""),
        ("progan/airplane/1_fake/d.png", FAKE, "progan", "progan", ""),
        ("progan/cat/0_real/e.png", REAL, "progan", "real", ""),
    }


def test_tree__genimage(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *(f"ADM/imagenet_adm/{s}/{k}/x.png" for s in ("train", "val") for k in ("nature", "ai")),
    )
    where = "ADM/imagenet_adm"
    assert tree_of(tmp_path) == {
        (f"{where}/train/ai/x.png", FAKE, "imagenet_adm", "imagenet_adm", "train"),
        (f"{where}/train/nature/x.png", REAL, "imagenet_adm", "real", "train"),
        (f"{where}/val/ai/x.png", FAKE, "imagenet_adm", "imagenet_adm", "test"),
        (f"{where}/val/nature/x.png", REAL, "imagenet_adm", "real", "test"),
    }


def test_tree__cifake_is_named_by_its_root(tmp_path: Path) -> None:
    root = tmp_path / "cifake"
    touch(root, "train/REAL/0.jpg", "train/FAKE/0.jpg", "test/REAL/1.jpg", "test/FAKE/1.jpg")
    assert tree_of(root) == {
        ("train/REAL/0.jpg", REAL, "cifake", "real", "train"),
        ("train/FAKE/0.jpg", FAKE, "cifake", "cifake", "train"),
        ("test/REAL/1.jpg", REAL, "cifake", "real", "test"),
        ("test/FAKE/1.jpg", FAKE, "cifake", "cifake", "test"),
    }


def test_tree__val_beside_test_is_validation(tmp_path: Path) -> None:
    touch(tmp_path, *(f"set/{split}/real/{split}.png" for split in ("train", "val", "test")))
    frame = Tree(tmp_path).scan().frame
    assert dict(zip(frame["path"].str[-8:], frame["split"], strict=True)) == {
        "test.png": "test",
        "rain.png": "train",
        "/val.png": "val",
    }


def test_tree__names_survive(tmp_path: Path) -> None:
    names = [
        "a.b.c.png",
        "with space.JPEG",
        "übergröße.PNG",
        "no_ending",
        "odd.ending",
        "日本.webp",
        "1.10",
    ]
    touch(tmp_path, *(f"s/0_real/{name}" for name in names))
    paths = Tree(tmp_path).scan().frame["path"].tolist()
    assert paths == sorted(f"s/0_real/{name}" for name in names)


def test_list_images__ignores_what_is_known_to_be_none(tmp_path: Path) -> None:
    others = [
        "Thumbs.db",
        "desktop.ini",
        "notes.TXT",
        "meta.json",
        "labels.csv",
        "README",
        "a.tar.gz",
    ]
    touch(tmp_path, *others, ".DS_Store", ".hidden/x.png", "__MACOSX/y.png", "z.png")
    assert list_images(tmp_path) == ["z.png"]


def test_tree__two_layouts_in_one_place(tmp_path: Path) -> None:
    touch(tmp_path, "set/0_real/a.png", "set/fake/b.png")
    with pytest.raises(
        DataError, match=r"set: 0_real and fake are of two layouts.*0_real/1_fake, nature/ai"
    ):
        Tree(tmp_path).scan()


@pytest.mark.parametrize("loose", ["loose.png", "set/loose.png", "set/other/loose.png"])
def test_tree__images_beside_a_layout(tmp_path: Path, loose: str) -> None:
    touch(tmp_path, "set/0_real/a.png", loose)
    with pytest.raises(DataError, match=rf"\(set/0_real\) and images beside them \({loose}\)"):
        Tree(tmp_path).scan()


def test_tree__side_in_a_side(tmp_path: Path) -> None:
    touch(tmp_path, "set/0_real/1_fake/a.png")
    with pytest.raises(DataError, match=r"0_real/1_fake: a side's folder inside the side '0_real'"):
        Tree(tmp_path).scan()


@pytest.mark.parametrize("names", [[], ["set/0_real/notes.txt"]])
def test_tree__empty(tmp_path: Path, names: list[str]) -> None:
    touch(tmp_path, *names)
    with pytest.raises(
        DataError, match=rf"{tmp_path}: holds no image; known layouts: 0_real/1_fake"
    ):
        Tree(tmp_path).scan()


def test_tree__unknown_layout(tmp_path: Path) -> None:
    touch(tmp_path, "cats/a.png")
    with pytest.raises(DataError, match=r"its images \(cats/a.png\) are in no known layout; known"):
        Tree(tmp_path).scan()


def test_tree__missing_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: no such folder"):
        Tree(tmp_path / "gone").scan()


def test_tree__link_into_itself(tmp_path: Path) -> None:
    touch(tmp_path, "set/0_real/a.png")
    (tmp_path / "set" / "loop").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(DataError, match="loop: links to a folder that it is in"):
        Tree(tmp_path).scan()


def test_tree__name_that_is_not_unicode(tmp_path: Path) -> None:
    (tmp_path / "0_real").mkdir()
    try:
        os.close(os.open(os.fsencode(tmp_path) + b"/0_real/\xff.png", os.O_CREAT))
    except OSError:
        pytest.skip("this file system only takes Unicode names")
    with pytest.raises(DataError, match="is not UTF-8; rename the file"):
        Tree(tmp_path).scan()


@pytest.mark.parametrize(
    ("recursive", "expected"), [(True, ["a.png", "b/c.png"]), (False, ["a.png"])]
)
def test_folder__labels_are_unknown(tmp_path: Path, recursive: bool, expected: list[str]) -> None:
    touch(tmp_path, "a.png", "b/c.png")
    frame = Folder(tmp_path, recursive=recursive).scan().frame
    assert frame["path"].tolist() == expected
    assert set(frame["label"]) == {UNKNOWN}
    assert set(frame["dataset"]) == {tmp_path.name}
    assert set(frame["generator"]) == {"unknown"}


def test_folder__empty(tmp_path: Path) -> None:
    touch(tmp_path, "b/c.png")
    with pytest.raises(DataError, match="holds no image; set recursive"):
        Folder(tmp_path, recursive=False).scan()


def test_folder__files_patterns_and_lists(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path, "a.png", "b/c.png", "b/d.jpg", "b/notes.txt", "b/e/f.png", "[x].png")
    monkeypatch.chdir(tmp_path)

    def found(*places: str | Path, **settings: bool) -> list[str]:
        source = Folder([Path(place) for place in places], **settings)
        manifest = source.scan()
        assert all(path.is_file() for path in manifest.paths())
        return manifest.frame["path"].tolist()

    assert found("b") == ["c.png", "d.jpg", "e/f.png"]
    assert found("b/d.jpg") == ["b/d.jpg"]
    assert found("b/*") == ["b/c.png", "b/d.jpg"]
    assert found("**/*.png") == ["[x].png", "a.png", "b/c.png", "b/e/f.png"]
    assert found("[x].png") == ["[x].png"]
    assert found("b", "a.png", "b/d.jpg", recursive=False) == ["b/c.png", "b/d.jpg", "a.png"]
    assert found(tmp_path / "a.png") == [f"{tmp_path}/a.png"]
    assert Folder(Path("a.png")).scan().frame["dataset"].tolist() == ["images"]
    with pytest.raises(DataError, match=r"^x.png, y\*: no such file or folder; give images"):
        found("a.png", "x.png", "y*")
    with pytest.raises(DataError, match=r"^b/notes.txt: not named as an image"):
        found("a.png", "b/notes.txt")


def test_tree__a_set_with_class_folders_takes_a_name(tmp_path: Path) -> None:
    touch(tmp_path, "indoor/0_real/a.png", "indoor/1_fake/b.png", "street/1_fake/c.png")
    assert set(Tree(tmp_path).scan().frame["generator"]) == {"real", "indoor", "street"}
    frame = Tree(tmp_path, name="progan").scan().frame
    assert set(frame["dataset"]) == {"progan"}
    assert set(frame["generator"]) == {"real", "progan"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_list_images__pipes_are_none_and_broken_links_are_missing(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("nowhere.png")
    assert list_images(tmp_path) == ["a.png", "link.png"]


def test_tree__shared_groups_keep_a_prompt_on_one_side_of_the_split(tmp_path: Path) -> None:
    for name in ("sdxl", "flux"):
        touch(tmp_path, *(f"{name}/1_fake/prompt{i:02}__{name}.png" for i in range(30)))

    def straddling(shared: bool) -> int:
        source = Tree(tmp_path, group="(.+)__", shared_groups=shared)
        frame = assign_splits(source.scan(), seed=0).frame
        prompt = frame["path"].str.extract(r"(prompt\d+)")[0]
        return int((frame["split"].groupby(prompt).nunique() > 1).sum())

    assert straddling(shared=True) == 0
    assert straddling(shared=False) > 5
