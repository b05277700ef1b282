"""The split that a set was published with, whatever the source."""

from pathlib import Path

import pandas as pd
import pytest

from dfl.data import (
    Fields,
    HuggingFace,
    ImageSet,
    Manifest,
    ManifestFile,
    Pair,
    Pairs,
    Parquet,
    Tree,
    WebDataset,
)
from dfl.data.sources.published import folder_of, keep_published
from tests.data.packing import image_table, pack_parquet, pack_tar, png, save_to_disk


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def splits_of(manifest: Manifest) -> dict[str, str]:
    return dict(zip(manifest.frame["path"], manifest.frame["split"], strict=True))


def kept(*paths: str, split: str = "", dataset: str = "d", root: Path = Path("data")) -> Manifest:
    frame = pd.DataFrame({"path": paths, "split": split, "dataset": dataset})
    frame, notes = keep_published(frame, root)
    return Manifest(frame, root, tuple(notes))


@pytest.mark.parametrize(
    ("path", "folder"),
    [
        ("a/b/c.png", "a/b"),
        ("c.png", ""),
        ("x/a.tar::d/e/0.png", "x/a.tar::d/e"),
        ("a.tar::0.png", "a.tar::"),
        ("x/train-0.parquet::image/3", "x/train-0.parquet::"),
    ],
)
def test_folder_of__files_and_containers(path: str, folder: str) -> None:
    assert folder_of(path) == folder


@pytest.mark.parametrize("word", ["train", "Training", "TRAIN", "train2017", "train_images"])
@pytest.mark.parametrize(
    "place", ["{}/real/a.png", "s/{}/a.png", "s/real/{}/x/a.png", "s.tar::{}/a"]
)
def test_split__above_at_and_below_a_side(word: str, place: str) -> None:
    for split, said in (("train", word), ("test", "Testing"), ("val", "VALID")):
        manifest = kept(*(place.format(each) for each in (word, "Testing", "VALID")))
        assert splits_of(manifest)[place.format(said)] == split


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("test/progan/train/0_real/a.png", "test"),  # a class of objects in a test part
        ("val/train/0_real/a.png", "test"),
        ("train/train/0_real/a.png", "train"),
        ("train/genimage/val/ai/a.png", "test"),
        ("progan_val/0_real/a.png", "test"),
        ("contest/latest/validity/trained/a.png", ""),
        ("train_test/a.png", ""),
    ],
)
def test_split__the_strictest_of_a_path(path: str, split: str) -> None:
    assert splits_of(kept(path)) == {path: split}


def test_split__train_beside_objects_is_one_of_them() -> None:
    manifest = kept("progan/airplane/0_real/a.png", "progan/train/0_real/b.png")
    assert set(splits_of(manifest).values()) == {""}
    (line,) = list(manifest.notes)
    assert line == (
        "progan/train: is taken for a class of objects, as what is beside it (airplane)"
    )
    # beside a test part it is none
    assert set(splits_of(kept("train/a.png", "cat/b.png", "test/c.png")).values()) == {
        *("train", "", "test")
    }


def test_val__is_reported_where_there_is_no_test_beside_it() -> None:
    manifest = kept("s/train/a.png", "s/val/b.png")
    assert splits_of(manifest)["s/val/b.png"] == "test"
    assert manifest.notes[0] == (
        "d: as published, 1 images in train/ are train, 1 images in val/ are test, as it has no "
        "test part"
    )
    manifest = kept("s/train/a.png", "s/val/b.png", "s/Test/c.png")
    assert splits_of(manifest)["s/val/b.png"] == "val"
    assert "1 images in val/ are val" in manifest.notes[0]


def test_val__is_one_of_both_sides_of_a_pair() -> None:
    """COCO has a test part, the generated images have none: all of val is reported."""
    manifest = kept("coco/val2017/a.png", "coco/test2017/b.png", "sd/val2017/c.png")
    assert set(splits_of(manifest).values()) == {"test"}


def test_shards__by_their_names(tmp_path: Path) -> None:
    for number, name in enumerate(["train-00000-of-00002", "data_test_3", "validation-0"]):
        images = [png(10 * number + i) for i in range(4)]
        pack_parquet(tmp_path / "p" / f"{name}.parquet", image_table(images, label=[0, 1, 0, 1]))
        files = {f"{i}.png": image for i, image in enumerate(images)}
        files |= {f"{i}.cls": str(i % 2).encode() for i in range(4)}
        pack_tar(tmp_path / "w" / f"{name}.tar", files)
    for source in (Parquet(tmp_path / "p"), WebDataset(tmp_path / "w")):
        manifest = source.scan()
        assert manifest.frame["split"].tolist() == ["test"] * 4 + ["train"] * 4 + ["val"] * 4
        assert manifest.notes[-1].endswith(
            ": as published, 4 images in files named test are test, 4 images in files named train "
            "are train, 4 images in files named validation are val"
        )


def test_shards__train_alone_is_what_data_without_splits_are_called(tmp_path: Path) -> None:
    table = image_table([png(i) for i in range(4)], label=[0, 1, 0, 1])
    pack_parquet(tmp_path / "train-0.parquet", table)
    manifest = Parquet(tmp_path).scan()
    assert set(manifest.frame["split"]) == {""}
    assert manifest.notes[-1].startswith(
        "train-0: 'train' is all that names of files say, so it is taken for no"
    )
    pack_parquet(tmp_path / "converted" / "default" / "train" / "0000.parquet", table)
    assert set(Parquet(tmp_path / "converted").scan().frame["split"]) == {""}
    pack_parquet(tmp_path / "converted" / "default" / "test" / "0000.parquet", table)
    assert set(Parquet(tmp_path / "converted").scan().frame["split"]) == {"train", "test"}
    save_to_disk(tmp_path / "hf" / "train", table)
    (tmp_path / "hf" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    manifest = HuggingFace(str(tmp_path / "hf")).scan()
    assert set(manifest.frame["split"]) == {""}
    assert manifest.notes[-1].startswith(
        "hf: train is its only split, so it is taken for no split; "
    )
    assert set(Pairs(tmp_path, {"p": Pair("hf", "train-0.parquet")}).scan().frame["split"]) == {""}


@pytest.mark.parametrize("name", ["test", "Validation", "eval"])
def test_hugging_face__a_test_split_alone_is_never_trained_on(tmp_path: Path, name: str) -> None:
    save_to_disk(tmp_path / name, image_table([png(i) for i in range(4)], label=[0, 1, 0, 1]))
    (tmp_path / "dataset_dict.json").write_text(f'{{"splits": ["{name}"]}}')
    assert set(HuggingFace(str(tmp_path)).scan().frame["split"]) == {"test"}
    as_side = Pairs(tmp_path.parent, {"p": Pair(tmp_path.name, tmp_path.name)})
    with pytest.raises(Exception, match="is on both sides"):
        as_side.scan()


def test_column__counts_more_than_a_name(tmp_path: Path) -> None:
    columns = {"label": [0, 1, 0, 1], "part": ["Training", "training", None, "test2017"]}
    pack_parquet(tmp_path / "test-0.parquet", image_table([png(i) for i in range(4)], **columns))
    manifest = Parquet(tmp_path, fields=Fields(split="part"), name="set").scan()
    assert manifest.frame["split"].tolist() == ["train", "train", "test", "test"]
    assert (
        "set: 2 images in files named test are train, as their column or the config says"
        in manifest.notes
    )


def test_root__its_own_name_counts_where_nothing_in_it_says_a_split(tmp_path: Path) -> None:
    root = touch(tmp_path / "in/Test", "biggan/0_real/a.png", "biggan/1_fake/b.png")
    for source in (Tree(root), Pairs(root, {"biggan": Pair("biggan", "biggan")})):
        manifest = source.scan()
        assert set(manifest.frame["split"]) == {"test"}
        assert list(manifest.notes) == [
            f"{root}: is the test part as a whole, by its own name",
            "biggan: as published, 2 images in Test/ are test",
        ]
    touch(root, "sdxl/train/1_fake/c.png")
    manifest = Tree(root).scan()
    assert set(manifest.frame["split"]) == {"", "train"}
    assert (
        f"{root}: its own name (test) counts for no split, since folders in it do" in manifest.notes
    )


def test_root__what_is_above_it_is_not_taken_and_said(tmp_path: Path) -> None:
    root = touch(tmp_path / "in/test/biggan", "0_real/a.png", "1_fake/b.png")
    for source in (Tree(root), Pairs(root, {"p": Pair(".", ".")})):
        manifest = source.scan()
        assert set(manifest.frame["split"]) == {""}
        (line,) = list(manifest.notes)
        assert line == (
            f"{root}: 'test' above it is not taken for the split test, since it is not under the "
            f"root; to have it, set root to {tmp_path / 'in'}"
        )
    assert set(Tree(tmp_path / "in").scan().frame["split"]) == {"test"}


def test_root__a_home_far_above_decides_and_says_nothing(tmp_path: Path) -> None:
    root = touch(tmp_path / "test/work/project/data", "biggan/0_real/a.png")
    manifest = Tree(root).scan()
    assert set(manifest.frame["split"]) == {""}
    assert list(manifest.notes) == []


def test_outside__the_place_is_not_taken_and_said(tmp_path: Path) -> None:
    touch(tmp_path, "data/test/biggan/0_real/a.png", "data/test/biggan/1_fake/b.png", "root/x")
    place = tmp_path / "data/test/biggan"
    manifest = Pairs(tmp_path / "root", {"p": Pair(str(place), str(place))}).scan()
    assert set(manifest.frame["split"]) == {""}
    assert list(manifest.notes) == [
        f"{place}: 'test' in it is not taken for a split, since the set is not under the root; to "
        f"have it, give the set with {{path: {place}, split: test}}"
    ]
    given = ImageSet(str(place), split="test")
    manifest = Pairs(tmp_path / "root", {"p": Pair(given, given)}).scan()
    assert set(manifest.frame["split"]) == {"test"}
    assert manifest.notes == ()
    touch(tmp_path, "data/test/glide/train/real/a.png", "data/test/glide/val/fake/a.png")
    place = tmp_path / "data/test/glide"
    frame = Pairs(tmp_path / "root", {"p": Pair(str(place), str(place))}).scan().frame
    assert frame["split"].tolist() == ["train", "test"]


def test_recipe__a_set_without_a_split_is_described_as_before() -> None:
    def recipe(split: str | None) -> object:
        return Pairs(Path("data"), {"split": Pair(ImageSet("a", split=split), ["b"])}).recipe()

    assert recipe(None) == {
        "class_path": "dfl.data.Pairs",
        "init_args": {
            "root": "data",
            "pairs": {
                "split": {
                    "class_path": "dfl.data.Pair",
                    "init_args": {
                        "real": {
                            "class_path": "dfl.data.ImageSet",
                            "init_args": {
                                "path": "a",
                                "generator": None,
                                "group": None,
                                "shared_groups": False,
                            },
                        },
                        "fake": ["b"],
                    },
                }
            },
        },
    }
    assert recipe(None) != recipe("test")


def test_table__words_of_folders_are_said_where_it_has_no_split(tmp_path: Path) -> None:
    touch(tmp_path, "test/a.png", "test/b.png", "other/c.png")
    (tmp_path / "t.csv").write_text("filename,label\ntest/a.png,0\ntest/b.png,1\nother/c.png,1\n")
    (tmp_path / "s.csv").write_text("filename,label,split\ntest/a.png,0,train\n")
    line = (
        f"{tmp_path}/t.csv: 2 images in test/ have no split, so they are dealt one; to keep it, "
        "write it in a column split"
    )
    assert line in ManifestFile(tmp_path / "t.csv").scan().notes
    assert not any("dealt" in note for note in ManifestFile(tmp_path / "s.csv").scan().notes)


def test_packed__splits_and_generators_by_folders_and_names(tmp_path: Path) -> None:
    for number, (place, split) in enumerate(
        (p, s) for p in ("photos", "fakes") for s in ("train", "test")
    ):
        files = {f"{i}.png": png(10 * number + i) for i in range(2)}
        pack_tar(tmp_path / place / split / "0.tar", files)
        pack_tar(tmp_path / f"{place}-{split}-0.tar", files)
    by_folder = Pairs(tmp_path, {"p": Pair("photos", "fakes/*/*.tar")}).scan()
    by_name = Pairs(tmp_path, {"p": Pair("photos-*.tar", "fakes-*.tar")}).scan()
    for manifest in (by_folder, by_name):
        frame = manifest.frame
        assert frame["split"].tolist() == ["test", "test", "train", "train"] * 2
        assert frame["path"].str.contains("test").tolist() == (frame["split"] == "test").tolist()
        assert set(frame["generator"]) == {"real", "fakes"}
    for name in ("sdxl", "flux"):
        pack_tar(tmp_path / "more" / f"{name}-01.tar", {f"{name}.png": png(0)})
    assert (
        "more: its files (flux, sdxl) count as one generator, more; to tell them apart, name each "
        "as a set of a pair"
    ) in Pairs(tmp_path, {"p": Pair("photos", "more")}).scan().notes


def test_words__a_name_with_two_is_said(tmp_path: Path) -> None:
    manifest = kept("train_test/a.png")
    (line,) = list(manifest.notes)
    assert line.startswith("train_test: has words of several splits and is taken for none")
