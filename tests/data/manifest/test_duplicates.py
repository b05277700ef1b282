import logging
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfl.data.manifest.duplicates import PROBE_BYTES, UnionFind, find_identical, join_identical
from dfl.data.manifest.manifest import Manifest
from dfl.errors import DataError, ManifestError
from tests.data.manifest.manifest_examples import NAMES, manifests


def write(root: Path, **contents: bytes) -> list[Path]:
    for name, content in contents.items():
        (root / name).write_bytes(content)
    return [root / name for name in contents]


def manifest_of(root: Path, *rows: tuple[str, int, str, str]) -> Manifest:
    names = ("path", "label", "split", "group")
    known = {"dataset": "d", "generator": "g"}
    return Manifest.from_rows([dict(zip(names, row, strict=True), **known) for row in rows], root)


def test_find_identical__needs_every_byte(tmp_path: Path) -> None:
    long = bytes(3 * PROBE_BYTES)
    files = write(
        tmp_path,
        a=b"same",
        b=b"other",
        c=b"same",
        d=b"eman",
        e=long,
        f=b"x" + long[1:],  # alike in the middle
        g=long[:-1] + b"x",
        h=long,
        i=b"",
        j=b"",
    )
    assert sorted(find_identical(files)) == [[0, 2], [4, 7], [8, 9]]


def test_find_identical__missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: cannot be read"):
        find_identical([tmp_path / "gone"])


@given(st.lists(st.tuples(NAMES, NAMES)))
def test_union_find__against_a_plain_closure(joins: list[tuple[str, str]]) -> None:
    sets = UnionFind()
    for pair in joins:
        sets.join(*pair)
    for item in {item for pair in joins for item in pair} | {"alone"}:
        reached, ahead = {item}, [item]
        while ahead:
            here = ahead.pop()
            near = {other for pair in joins if here in pair for other in pair} - reached
            reached |= near
            ahead += near
        assert sets.find(item) == min(reached)


@given(manifests(st.sampled_from("abcdefghij")), st.lists(st.sampled_from([b"x", b"y", b"z"])))
def test_join_identical__one_content_one_group_one_split(
    tmp_path_factory: pytest.TempPathFactory, manifest: Manifest, contents: list[bytes]
) -> None:
    root = tmp_path_factory.getbasetemp() / "identical"
    root.mkdir(exist_ok=True)
    paths = sorted(set(manifest.frame["path"]))
    content = {path: path.encode() for path in paths} | dict(zip(paths, contents, strict=False))
    for path in paths:
        (root / path).write_bytes(content[path])
    before = manifest.frame.assign(label=1)
    after = join_identical(Manifest(before, root)).frame
    after["content"] = after["path"].map(content)
    for column in ("path", "content"):
        assert (after.groupby(column)["group"].nunique() == 1).all()
    decided = after[after["split"] != ""]
    assert (decided.groupby("group")["split"].nunique() <= 1).all()
    assert ((after["split"] == "") == (before["split"] == "")).all()
    # images that were together stay so
    assert (after.groupby(before["group"])["group"].nunique() == 1).all()


def test_join_identical__joins_whole_groups(tmp_path: Path) -> None:
    write(tmp_path, a=b"1", b=b"2", c=b"1", d=b"3")
    rows = [("a", 1, "", "x"), ("b", 1, "", "x"), ("c", 1, "", "y"), ("d", 1, "", "y")]
    groups = join_identical(manifest_of(tmp_path, *rows)).frame["group"].tolist()
    assert groups == ["x", "x", "x", "x"]


def test_join_identical__real_and_fake(tmp_path: Path) -> None:
    write(tmp_path, a=b"1", b=b"1")
    manifest = manifest_of(tmp_path, ("a", 0, "", "a"), ("b", 1, "", "b"))
    with pytest.raises(ManifestError, match=r"a \(real\) and .*b \(fake\) have the same content"):
        join_identical(manifest)


def test_join_identical__unknown_label_conflicts_with_none(tmp_path: Path) -> None:
    write(tmp_path, a=b"1", b=b"1")
    manifest = manifest_of(tmp_path, ("a", -1, "", "a"), ("b", 1, "", "b"))
    assert join_identical(manifest).frame["group"].tolist() == ["a", "a"]


def test_join_identical__training_image_that_is_tested_moves_to_the_test(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, a=b"1", b=b"1", c=b"2")
    rows = [("a", 0, "train", "a"), ("b", 0, "test", "b"), ("c", 0, "train", "c")]
    with caplog.at_level(logging.WARNING):
        joined = join_identical(manifest_of(tmp_path, *rows))
    assert joined.frame["split"].tolist() == ["test", "test", "train"]
    assert caplog.messages == [
        "1 images are identical to, or in one group with, an image of a stricter split and were "
        "moved there"
    ]
    joined.validate()


def both_classes(root: Path, contents: int) -> Manifest:
    rows: list[tuple[str, int, str, str]] = []
    for number in range(contents):
        write(root, **{f"r{number:02}": b"%d" % number, f"f{number:02}": b"%d" % number})
        rows += [(f"{side}{number:02}", label, "", f"{side}{number:02}")
                 for side, label in (("r", 0), ("f", 1))]  # fmt: skip
    write(root, real=b"only real", fake=b"only fake")
    return manifest_of(root, *rows, ("real", 0, "", "real"), ("fake", 1, "", "fake"))


def test_label_conflicts__all_are_named_at_once(tmp_path: Path) -> None:
    report = tmp_path / "conflicts.csv"
    with pytest.raises(ManifestError) as caught:
        join_identical(both_classes(tmp_path, 3), conflicts=report)
    said = str(caught.value)
    assert all(f"r0{i} (real) and {tmp_path}/f0{i} (fake)" in said for i in range(3))
    assert "set on_label_conflict to skip" in said
    assert not report.exists()


def test_label_conflicts__of_many_ten_are_named_and_the_rest_listed(tmp_path: Path) -> None:
    report = tmp_path / "conflicts.csv"
    with pytest.raises(ManifestError) as caught:
        join_identical(both_classes(tmp_path, 14), conflicts=report)
    said = str(caught.value)
    assert said.count("(real) and") == 10
    assert f"and 4 more, listed in {report} have the same content" in said
    assert "\n" not in said
    table = pd.read_csv(report)
    assert (len(table), table["content"].nunique()) == (28, 14)


def test_label_conflicts__left_out_by_choice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    report = tmp_path / "conflicts.csv"
    manifest = both_classes(tmp_path, 2)
    write(tmp_path, r00_again=b"0")
    more = manifest_of(tmp_path, ("r00_again", 0, "", "r00_again"))
    frame = pd.concat([manifest.frame, more.frame], ignore_index=True)
    kept = join_identical(Manifest(frame, tmp_path), conflicts=report, skip=True)
    assert kept.frame["path"].tolist() == ["real", "fake"]
    assert kept.frame.index.tolist() == [0, 1]
    assert caplog.messages == [
        f"left out 5 images whose content is there as real and as fake, listed in {report}"
    ]
    assert sorted(pd.read_csv(report)["path"]) == ["f00", "f01", "r00", "r00_again", "r01"]
    alone = manifest_of(tmp_path, ("real", 0, "", "real"), ("fake", 1, "", "fake"))
    assert len(join_identical(alone, conflicts=report, skip=True)) == 2
    assert not report.exists()  # an old list is no list of these images


def test_label_conflicts__nothing_left(tmp_path: Path) -> None:
    write(tmp_path, a=b"1", b=b"1")
    manifest = manifest_of(tmp_path, ("a", 0, "", "a"), ("b", 1, "", "b"))
    with pytest.raises(DataError, match="each of its images is there as real and as fake"):
        join_identical(manifest, skip=True)
