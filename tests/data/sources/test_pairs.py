import shutil
from pathlib import Path

import pytest

from dfl.data.sources.folders import Source
from dfl.data.sources.pairs import Pair, pair_manifest
from dfl.errors import ConfigError, ManifestError


def test_pair_manifest__a_real_set_serves_two_pairs(pair_root: Path, paint) -> None:
    paint("root/ldm/1_fake/z.png")
    pairs = {"one": Pair("photos", "gan"), "two": Pair("photos", ["ldm", Source("gan", "GAN 2")])}
    manifest = pair_manifest(pairs, pair_root)
    manifest.validate("pairs")
    frame = manifest.frame
    assert frame.groupby(["dataset", "label"]).size().tolist() == [20, 20, 20, 21]
    assert set(frame[frame["dataset"] == "two"]["generator"]) == {"real", "ldm", "GAN 2"}
    assert frame.groupby("path")["group"].nunique().max() == 1
    assert frame["path"].is_unique is False


def test_pair_manifest__groups_meet_across_the_sides(pair_root: Path) -> None:
    both = Source("both", group=r"(.+)_(?:real|fake)_B")
    frame = pair_manifest({"both": Pair(both, both)}, pair_root).frame
    assert frame["group"].nunique() == 10
    assert (frame.groupby("group")["label"].nunique() == 2).all()


def test_pair_manifest__two_group_rules_of_one_image_join(pair_root: Path) -> None:
    grouped = Source("gan", group="(.+)__")
    pairs = {"a": Pair("photos", grouped), "b": Pair("photos", "gan")}
    manifest = pair_manifest(pairs, pair_root)
    manifest.validate()
    fakes = manifest.frame[manifest.frame["label"] == 1]
    assert fakes["group"].nunique() == 10


def test_pair_manifest__identical_files_are_one_group(pair_root: Path) -> None:
    shutil.copy(pair_root / "gan/1_fake/scene0__0.png", pair_root / "gan/1_fake/copy.png")
    frame = pair_manifest({"a": Pair("photos", "gan")}, pair_root).frame
    groups = dict(zip(frame["path"], frame["group"], strict=True))
    assert groups["gan/1_fake/copy.png"] == groups["gan/1_fake/scene0__0.png"]
    assert frame["group"].nunique() == len(frame) - 1


@pytest.mark.parametrize("fake", ["plain", ["gan", "plain"]])
def test_pair_manifest__path_on_both_sides(pair_root: Path, fake: str | list[str | Source]) -> None:
    (pair_root / "photos/0_real").rename(pair_root / "plain")
    with pytest.raises(ManifestError, match=r"pair 'a': .*plain/p00\.png is on both sides"):
        pair_manifest({"a": Pair("plain", fake)}, pair_root)


def test_pair_manifest__same_content_on_both_sides(pair_root: Path) -> None:
    shutil.copy(pair_root / "photos/0_real/p03.png", pair_root / "gan/1_fake/stray.png")
    with pytest.raises(ManifestError) as caught:
        pair_manifest({"a": Pair("photos", "gan")}, pair_root)
    message = str(caught.value)
    assert f"{pair_root}/photos/0_real/p03.png (real) and" in message
    assert f"{pair_root}/gan/1_fake/stray.png (fake) have the same content" in message


def test_pair_manifest__source_named_twice(pair_root: Path) -> None:
    with pytest.raises(ManifestError, match=r"p00\.png is in two sources of one side"):
        pair_manifest({"a": Pair(["photos", "photos/0_real"], "gan")}, pair_root)


def test_pair_manifest__nothing_named(pair_root: Path) -> None:
    with pytest.raises(ConfigError, match="pairs: there is none"):
        pair_manifest({}, pair_root)
    with pytest.raises(ConfigError, match=r"a\.fake: has no source"):
        pair_manifest({"a": Pair("photos", [])}, pair_root)
