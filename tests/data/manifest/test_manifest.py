import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given

from dfl.data.manifest.manifest import Manifest
from dfl.data.manifest.rules import COLUMNS
from dfl.errors import ManifestError
from tests.data.manifest.manifest_examples import manifests

HEADER = ",".join(COLUMNS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "m.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def manifest_of(root: Path, *paths: str) -> Manifest:
    known = {"label": 1, "dataset": "1.10", "generator": "NA", "split": "train"}
    return Manifest.from_rows([{"path": p, "group": f"no {p}", **known} for p in paths], root)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_write_and_read__give_the_same_table(tmp_path: Path, suffix: str) -> None:
    names = [
        "x, y.png",
        'a "b".png',
        "ünï.PNG",
        "n.a.m.e",
        "NA",
        "1.10",
        " two  spaces ",
        "l\nb",
        "r\rb",
    ]
    manifest = manifest_of(tmp_path, *names)
    for name in names:
        (tmp_path / name).touch()

    manifest.write(tmp_path / f"m{suffix}")
    again = Manifest.read(tmp_path / f"m{suffix}")

    pd.testing.assert_frame_equal(again.frame, manifest.frame)
    assert again.root == tmp_path
    assert again.frame["label"].dtype == "int64"
    assert sorted(file.name for file in tmp_path.iterdir() if "tmp" in file.name) == []


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@given(manifest=manifests())
def test_write_and_read__give_any_table_back(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, manifest: Manifest
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    manifest.write(path)
    again = Manifest.read(path, manifest.root, check_paths=False)
    pd.testing.assert_frame_equal(again.frame, manifest.frame)


def test_read__keeps_extra_columns_as_text(folder: Path) -> None:
    path = write(folder, "a.png,0,d,real,,g,007", header=f"{HEADER},camera")
    assert Manifest.read(path).frame["camera"].tolist() == ["007"]


def test_read__fills_group_and_generator(folder: Path) -> None:
    frame = Manifest.read(write(folder, "a.png,0,d,,,", "b.png,-1,d,,,")).frame
    assert frame["group"].tolist() == ["a.png", "b.png"]
    assert frame["generator"].tolist() == ["real", "unknown"]


def test_read__takes_the_mark_of_spreadsheets(folder: Path) -> None:
    path = write(folder, "a.png,0,d,,,")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(Manifest.read(path)) == 1


def test_read__takes_null_and_integers_of_parquet(folder: Path) -> None:
    table = {"path": ["a.png"], "label": [0], "dataset": [7], "generator": ["real"]}
    frame = pd.DataFrame({**table, "split": [None], "group": [None]})
    frame.to_parquet(folder / "m.parquet")
    read = Manifest.read(folder / "m.parquet").frame
    assert read.iloc[0].tolist() == ["a.png", 0, "7", "real", "", "a.png"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.png,0,d,,,", "b.png,2,d,g,,"], "row 3: label must be 0 (real) or 1 (fake), got 2"),
        (["a.png,0.0,d,,,"], "row 2: label must be 0 (real) or 1 (fake), got 0.0"),
        (["a.png,,d,,,"], "row 2: label must be 0 (real) or 1 (fake), got ;"),
        (["a.png,0,d,,dev,"], "row 2: split must be train, val, test or empty, got 'dev'"),
        (["a.png,0,d,,,", "a.png,0,d,,,"], "row 3: a.png is in dataset 'd' twice"),
        (["a.png,0,d,,,", "a.png,1,e,g,,"], "path 'a.png' has two labels, 0 and 1"),
        (["a.png,0,d,,,x", "a.png,0,e,,,y"], "path 'a.png' has two groups, 'x' and 'y'"),
        (["a.png,0,d,,train,", "a.png,0,e,,test,"], "path 'a.png' has two splits"),
        (
            ["a.png,0,d,,train,g", "b.png,0,d,,test,g"],
            "group 'g' has two splits, 'train' and 'test'",
        ),
        (["a.png,1,d,,,"], "row 2: generator is empty"),
        (["a.png,0,,,,"], "row 2: dataset is empty"),
        ([",0,d,,,"], "row 2: path is empty"),
        ([], "holds no image"),
        (["a.png,0,d,,,,,,"], "more fields than its header"),
        (["a.png,0,d,,,", "b.png,0,d"], "row 3 has fewer fields than its header (3 and 6)"),
        (
            ["a.png,0,d,,,", "y.png,0,d,,,", "z.png,0,d,,,"],
            ": y.png, z.png; restore them, give another root, or remove their rows",
        ),
    ],
)
def test_read__broken_rule_is_one_line(folder: Path, lines: list[str], message: str) -> None:
    path = write(folder, *lines)
    with pytest.raises(ManifestError) as caught:
        Manifest.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_read__missing_column(folder: Path) -> None:
    with pytest.raises(
        ManifestError, match="no column dataset, generator, split, group; a manifest"
    ):
        Manifest.read(write(folder, "a.png,0", header="path,label"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "no such manifest"),
        ("m.txt", b"", "ends in .csv, .tsv or .parquet, not '.txt'; save it as"),
        ("m.csv", b"", "not a readable csv table"),
        ("m.csv", b"\xff\xfe\x00", "not a readable csv table"),
        ("m.parquet", b"path", "not a readable parquet table"),
    ],
)
def test_read__unreadable_file(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ManifestError, match=message) as caught:
        Manifest.read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_read__missing_image_is_named_or_not_looked_for(folder: Path) -> None:
    path = write(folder, "a.png,0,d,,,", "sub/gone.png,0,d,,,")
    with pytest.raises(
        ManifestError, match=r"1 of 2 images are missing under .*: sub/gone\.png; restore"
    ):
        Manifest.read(path)
    assert len(Manifest.read(path, check_paths=False)) == 2


def test_read__absolute_paths_and_another_root(folder: Path, tmp_path_factory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = write(elsewhere, f"{folder}/a.png,0,d,,,", "b.png,0,d,,,")
    manifest = Manifest.read(path, folder)
    assert manifest.paths() == [folder / "a.png", folder / "b.png"]
    assert manifest.resolve("b.png") == folder / "b.png"


def test_select__restarts_the_index(folder: Path) -> None:
    lines = ["a.png,0,d,,train,", "b.png,0,d,,test,"]
    chosen = Manifest.read(write(folder, *lines)).select("test")
    assert chosen.frame["path"].tolist() == ["b.png"]
    assert list(chosen.frame.index) == [0]


def test_write__failure_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = manifest_of(tmp_path, "a.png")
    manifest.write(tmp_path / "m.csv")
    before = (tmp_path / "m.csv").read_bytes()

    def full_disk(frame: pd.DataFrame, path: Path, **_: object) -> None:
        path.write_text("path,lab")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pd.DataFrame, "to_csv", full_disk)
    with pytest.raises(
        ManifestError, match=r"m\.csv: cannot be written \(No space left on device\)"
    ):
        manifest.write(tmp_path / "m.csv")
    assert (tmp_path / "m.csv").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.csv"]


def test_write__into_a_file_as_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ManifestError, match="cannot be written"):
        manifest_of(tmp_path, "a.png").write(tmp_path / "file" / "m.csv")


def test_validate__is_fast(tmp_path: Path) -> None:
    count = 20_000
    names = [f"i{number}.png" for number in range(count)]
    manifest = manifest_of(tmp_path, *names)
    start = time.perf_counter()
    with pytest.raises(ManifestError, match="20000 of 20000 images are missing"):
        manifest.validate("big.csv")
    assert (
        time.perf_counter() - start < 10
    )  # far less than a second of work; row by row it would be minutes
