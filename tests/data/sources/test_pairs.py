import shutil
from pathlib import Path

import pytest

from dfl.data import ImageSet, Manifest, Pair, Pairs, assign_splits
from dfl.data.manifest.duplicates import join_identical
from dfl.errors import ConfigError, ManifestError
from tests.data.packing import pack_tar


def pair_manifest(pairs: dict[str, Pair], root: Path) -> Manifest:
    return join_identical(Pairs(root, pairs).scan())


def test_pairs__a_real_set_serves_two_pairs(pair_root: Path, paint) -> None:
    paint("root/ldm/1_fake/z.png")
    pairs = {"one": Pair("photos", "gan"), "two": Pair("photos", ["ldm", ImageSet("gan", "GAN 2")])}
    manifest = pair_manifest(pairs, pair_root)
    manifest.validate("pairs")
    frame = manifest.frame
    assert frame.groupby(["dataset", "label"]).size().tolist() == [20, 20, 20, 21]
    assert set(frame[frame["dataset"] == "two"]["generator"]) == {"real", "ldm", "GAN 2"}
    assert frame.groupby("path")["group"].nunique().max() == 1
    assert frame["path"].is_unique is False


def test_pairs__groups_meet_across_the_sides(pair_root: Path) -> None:
    both = ImageSet("both", group=r"(.+)_(?:real|fake)_B")
    frame = pair_manifest({"both": Pair(both, both)}, pair_root).frame
    assert frame["group"].nunique() == 10
    assert (frame.groupby("group")["label"].nunique() == 2).all()


def test_pairs__two_group_rules_of_one_image_join(pair_root: Path) -> None:
    grouped = ImageSet("gan", group="(.+)__")
    pairs = {"a": Pair("photos", grouped), "b": Pair("photos", "gan")}
    manifest = pair_manifest(pairs, pair_root)
    manifest.validate()
    fakes = manifest.frame[manifest.frame["label"] == 1]
    assert fakes["group"].nunique() == 10


def test_pairs__identical_files_are_one_group(pair_root: Path) -> None:
    shutil.copy(pair_root / "gan/1_fake/scene0__0.png", pair_root / "gan/1_fake/copy.png")
    frame = pair_manifest({"a": Pair("photos", "gan")}, pair_root).frame
    groups = dict(zip(frame["path"], frame["group"], strict=True))
    assert groups["gan/1_fake/copy.png"] == groups["gan/1_fake/scene0__0.png"]
    assert frame["group"].nunique() == len(frame) - 1


@pytest.mark.parametrize("fake", ["plain", ["gan", "plain"]])
def test_pairs__path_on_both_sides(pair_root: Path, fake: str | list[str | ImageSet]) -> None:
    (pair_root / "photos/0_real").rename(pair_root / "plain")
    with pytest.raises(ManifestError, match=r"pair 'a': .*plain/p00\.png is on both sides"):
        pair_manifest({"a": Pair("plain", fake)}, pair_root)


def test_pairs__same_content_on_both_sides(pair_root: Path) -> None:
    shutil.copy(pair_root / "photos/0_real/p03.png", pair_root / "gan/1_fake/stray.png")
    with pytest.raises(ManifestError) as caught:
        pair_manifest({"a": Pair("photos", "gan")}, pair_root)
    message = str(caught.value)
    assert f"{pair_root}/photos/0_real/p03.png (real) and" in message
    assert f"{pair_root}/gan/1_fake/stray.png (fake) have the same content" in message


def test_pairs__source_named_twice(pair_root: Path) -> None:
    with pytest.raises(ManifestError, match=r"p00\.png is in two sources of one side"):
        pair_manifest({"a": Pair(["photos", "photos/0_real"], "gan")}, pair_root)


def test_pairs__nothing_named(pair_root: Path) -> None:
    with pytest.raises(ConfigError, match="pairs: there is none"):
        pair_manifest({}, pair_root)
    with pytest.raises(ConfigError, match=r"a\.fake: has no source"):
        pair_manifest({"a": Pair("photos", [])}, pair_root)


def test_pairs__shared_groups_keep_a_prompt_on_one_side_of_the_split(tmp_path: Path) -> None:
    names = [f"prompt{number:02}" for number in range(30)]
    for folder in ("photos/0_real", "sdxl/1_fake"):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / folder / f"{name}__{folder[:2]}.png").touch()
    pack_tar(tmp_path / "flux.tar", {f"{name}__7.png": b"" for name in names})

    def straddling(shared: bool) -> int:
        photos, sdxl, flux = (
            ImageSet(path, group="(.+)__", shared_groups=shared)
            for path in ("photos", "sdxl", "flux.tar")
        )
        pairs = Pairs(tmp_path, {"a": Pair(photos, sdxl), "b": Pair(photos, [flux])})
        frame = assign_splits(pairs.scan(), seed=0).frame
        prompt = frame["path"].str.extract(r"(prompt\d+)")[0]
        assert frame["group"].nunique() == (30 if shared else 90)
        return int((frame["split"].groupby(prompt).nunique() > 1).sum())

    assert straddling(shared=True) == 0
    assert straddling(shared=False) > 5


def test_pairs__shared_groups_are_of_the_sets_that_say_so(tmp_path: Path) -> None:
    for folder in ("a/0_real", "b/1_fake", "c/1_fake"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "p1__x.png").touch()
    sets = [ImageSet(name, group="(.+)__", shared_groups=name != "c") for name in "abc"]
    frame = Pairs(tmp_path, {"x": Pair(sets[0], sets[1:])}).scan().frame
    assert frame["group"].tolist() == [":p1", ":p1", "c:p1"]


def test_pairs__shared_groups_need_a_group(tmp_path: Path) -> None:
    (tmp_path / "a/0_real").mkdir(parents=True)
    (tmp_path / "a/0_real/x.png").touch()
    with pytest.raises(ConfigError, match="shared_groups: needs group, which captures"):
        Pairs(tmp_path, {"x": Pair(ImageSet("a", shared_groups=True), "a")}).scan()
