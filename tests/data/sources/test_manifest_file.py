"""Tables that other tools wrote, and those with dfl's own columns."""

import json
import logging
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfl.data import CenterCrop, Fields, ImageDataModule, Manifest, ManifestFile, Splits
from dfl.errors import DataError, ManifestError
from dfl.recipe import fingerprint_of

IMAGES = [f"img/{i}.png" for i in range(6)]
LABELS = [0, 1, 0, 1, 0, 1]
OWN = "path,label,dataset,generator,split,group"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "img").mkdir()
    for image in IMAGES:
        (tmp_path / image).touch()
    return tmp_path


def table(folder: Path, header: str, *columns: list, name: str = "m.csv", sep: str = ",") -> Path:
    rows = zip(*columns, strict=True) if columns else []
    lines = [header, *(sep.join(map(str, row)) for row in rows)]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def words(real: object, fake: object) -> list[object]:
    return [real, fake] * 3


def scanned(path: Path, **settings: object) -> Manifest:
    return ManifestFile(path, **settings).scan()


def said(path: Path, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        scanned(path, **settings)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("filename,label", words(0, 1)),
        ("image_path,target", words("Real", "AI")),
        ("Filepath,Class", words("human", "AI-generated")),
        ("img path,labels", words("0_real", "1_fake")),
        ("filepaths,labels", words("RealArt", "AiArtData")),
        ("path,category", words("nature", "synthetic")),
        ("file_name,label", words("0.0", "1.0")),
        ("image,is_fake", words("False", "True")),
        ("image,isReal", words("TRUE", "FALSE")),
        ("image,is_real", words(1, 0)),
        ("image,is_ai_generated", words("no", "yes")),
        ("id,label", words("real", "fake")),
        ("path, label", [f" {word}" for word in words("real", "fake")]),
    ],
)
def test_foreign__columns_and_words(folder: Path, header: str, values: list) -> None:
    manifest = scanned(table(folder, header, IMAGES, values))
    frame = manifest.frame
    assert frame["path"].tolist() == IMAGES
    assert frame["label"].tolist() == LABELS
    assert frame["generator"].tolist() == ["real", "m"] * 3
    assert set(frame["dataset"]) == {"m"}
    assert frame["group"].tolist() == IMAGES
    assert set(frame["split"]) == {""}
    (note,) = manifest.notes
    for part in (*header.replace(", ", ",").split(","), *map(str, values[:2])):
        assert repr(part.strip()) in note


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_foreign__separators_and_encodings(folder: Path, sep: str, encoding: str) -> None:
    path = table(folder, sep.join(["file", "class"]), IMAGES, words("real", "fake"), sep=sep)
    path.write_text(path.read_text(), encoding=encoding)
    assert scanned(path).frame["label"].tolist() == LABELS
    tabs = path.rename(path.with_suffix(".tsv"))
    assert scanned(tabs).frame["label"].tolist() == LABELS


def test_foreign__one_column_for_each_class(folder: Path) -> None:
    path = table(folder, "filename, Fake, Real", IMAGES, words(0, 1), words(1, 0))
    assert scanned(path).frame["label"].tolist() == LABELS


def test_foreign__other_columns_and_the_index(folder: Path) -> None:
    parts = ["train", "train", "valid", "valid", "Testing", "Testing"]
    path = table(
        folder,
        ",file,class,model_name,subset,width",
        range(6),
        IMAGES,
        words("real", "ai"),
        ["", "sd", "", "sd", "", "flux"],
        parts,
        [64] * 6,
    )
    manifest = scanned(path)
    assert manifest.frame["generator"].tolist() == ["real", "sd", "real", "sd", "real", "flux"]
    assert manifest.frame["split"].tolist() == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    (note,) = manifest.notes
    assert "split from 'subset' (val = 'valid', test = 'Testing')" in note
    assert note.endswith("not used: width")


def test_foreign__fields_say_what_names_do_not(folder: Path) -> None:
    path = table(folder, "a,b,c", IMAGES, words("camera", "sdxl"), [1, 2, 1, 2, 1, 2])
    fields = Fields("b", real=["camera"], fake=["*"], generator="b", group="c")
    frame = scanned(path, image="a", fields=fields).frame
    assert frame["label"].tolist() == LABELS
    assert frame["generator"].tolist() == ["real", "sdxl"] * 3
    assert frame["group"].tolist() == ["1", "2"] * 3
    unknown = scanned(path, image="a", fields=Fields(None)).frame
    assert set(unknown["label"]) == {-1}
    other = Fields("b: ^(c|s)", real=["c"], fake=["s"], split=r"a: (.)\.")
    assert "no column z; it has a, b, c" in said(path, image="z", fields=fields)
    assert "row 2: its split '0' is none" in said(path, image="a", fields=other)


def test_foreign__reversed_numbers_are_told_by_words_beside_them(folder: Path) -> None:
    reversed_ = words(1, 0)
    path = table(folder, "path,label,label_str", IMAGES, reversed_, words("real", "fake"))
    assert said(path) == (
        "its columns label (1) and label_str (real) say different classes in 6 of 6 rows, the "
        "first is row 2; name the right one: fields.label, or what its values mean: fields.real, "
        "fields.fake"
    )
    assert scanned(path, fields=Fields("label_str")).frame["label"].tolist() == LABELS
    assert scanned(path, fields=Fields(real=[1], fake=[0])).frame["label"].tolist() == LABELS


@pytest.mark.parametrize(
    ("header", "values", "message"),
    [
        ("a,label", words(0, 1), None),  # of the names of files
        ("width,label", None, "no column of paths; name one: image (it has width, label)"),
        ("path,size", None, "no column of classes (it has path, size); name one: fields.label"),
        ("path,label", words("true", "false"), "its label 'true', row 3, row 5, row 7: its"),
        ("path,label", words("sdxl", "camera"), "add them to fields.real or fields.fake"),
        ("path,label,is_fake", None, "its columns label, is_fake say no class"),
    ],
)
def test_foreign__what_is_not_sure_is_refused(
    folder: Path, header: str, values: list | None, message: str | None
) -> None:
    names = header.split(",")
    columns = [IMAGES if name in ("path", "a") else values or [64] * 6 for name in names]
    path = table(folder, header, *columns)
    if message is None:
        assert len(scanned(path)) == 6
    else:
        assert message in said(path)


def test_foreign__a_name_and_a_path_are_told_by_the_files(folder: Path) -> None:
    names = [Path(image).name for image in IMAGES]
    path = table(folder, "filename,filepath,label", names, IMAGES, LABELS)
    assert scanned(path).frame["path"].tolist() == IMAGES
    path = table(folder, "file,image,label", names, names, LABELS)
    assert "its columns file, image could be the paths; name one: image" in said(path)


def test_foreign__numbers_that_are_the_contrary_of_the_folders(folder: Path) -> None:
    images = [f"{side}/{i}.png" for i in range(3) for side in ("Real", "fake")]
    for image in images:
        (folder / image).parent.mkdir(exist_ok=True)
        (folder / image).touch()
    path = table(folder, "file,class", images, words(1, 0))
    assert said(path).startswith(
        "its labels say the contrary of the folders in its paths (Real would be fake) in all 6 rows"
    )
    frame = scanned(path, fields=Fields("class", real=[1], fake=[0])).frame
    assert frame["label"].tolist() == LABELS
    assert scanned(table(folder, "file,class", images, LABELS)).frame["label"].tolist() == LABELS


def test_foreign__no_header(folder: Path) -> None:
    path = table(folder, "img/0.png,0", IMAGES, LABELS)
    assert said(path).startswith("begins with an image (img/0.png, 0); write the names of")


def test_foreign__paths_of_windows(folder: Path) -> None:
    path = table(folder, "path,label", [image.replace("/", "\\") for image in IMAGES], LABELS)
    manifest = scanned(path)
    assert manifest.frame["path"].tolist() == IMAGES
    assert "\\ is taken for /" in manifest.notes[0]
    (folder / "a\\b.png").touch()  # which other systems have
    path = table(folder, "path,label", ["a\\b.png"], [0])
    assert scanned(path).frame["path"].tolist() == ["a\\b.png"]


def test_foreign__all_rows_that_mean_nothing_are_named(folder: Path) -> None:
    path = table(folder, "path,label", IMAGES, ["real", "fkae", "", "ai", "maybe", ""])
    assert said(path) == (
        "row 4, row 7: its label is empty; give it one, or remove the row; row 3: its label "
        "'fkae', row 6: its label 'maybe' are neither a real value (0, real, ...) nor a fake one "
        "(1, fake, ...); add them to fields.real or fields.fake"
    )


def test_foreign__parquet_with_names_of_classes(folder: Path) -> None:
    columns = pa.table({"image_path": IMAGES, "label": [1, 0] * 3})
    names = {"label": {"_type": "ClassLabel", "names": ["FAKE", "REAL"]}}
    notes = {"huggingface": json.dumps({"info": {"features": names}})}
    pq.write_table(columns.replace_schema_metadata(notes), folder / "m.parquet")
    assert scanned(folder / "m.parquet").frame["label"].tolist() == LABELS
    truths = pd.DataFrame({"file": IMAGES, "is_fake": [False, True] * 3})
    truths.to_parquet(folder / "m.parquet")
    assert scanned(folder / "m.parquet").frame["label"].tolist() == LABELS
    pd.DataFrame({"image": [b"png"] * 6, "label": LABELS}).to_parquet(folder / "m.parquet")
    assert "has the images in it, not their paths; read it with" in said(folder / "m.parquet")


def test_own__is_read_as_it_is(folder: Path) -> None:
    path = table(
        folder,
        f"{OWN},camera",
        IMAGES,
        [0, 1, -1, 1, 0, 1],
        ["d"] * 6,
        ["", "gan", "", "gan", "x", "gan"],
        ["train", "test", "", "", "", ""],
        ["g", "h", "", "", "", ""],
        ["007"] * 6,
    )
    manifest = scanned(path)
    pd.testing.assert_frame_equal(manifest.frame, Manifest.read(path).frame)
    assert manifest.notes == ()
    known = ["ManifestFile", ManifestFile(path).recipe()[1], folder.as_posix()]
    assert fingerprint_of(ManifestFile(path).recipe()) == fingerprint_of(known)
    assert ManifestFile(path, fields=Fields()).recipe() != ManifestFile(path).recipe()


def test_own__in_other_words(folder: Path) -> None:
    labels = ["real", "fake", "-1", "fake", "real", "1"]
    splits = ["train", "valid", "", "test", "", ""]
    groups = ["g", "", "", "", "g", ""]
    generators, cameras = ["", "", "", "gan", "", ""], ["007"] * 6
    columns = [IMAGES, labels, ["d"] * 6, generators, splits, groups, cameras]
    frame = scanned(table(folder, f"{OWN},camera", *columns)).frame
    assert frame["label"].tolist() == [0, 1, -1, 1, 0, 1]
    assert frame["generator"].tolist() == ["real", "d", "unknown", "gan", "real", "d"]
    assert frame["split"].tolist() == ["train", "val", "", "test", "", ""]
    assert frame["group"].tolist() == ["g", *IMAGES[1:4], "g", IMAGES[5]]
    assert frame["camera"].tolist() == cameras


def test_own__what_is_wrong_in_it_is_said_as_ever(folder: Path) -> None:
    rest = [["d"] * 6, ["gan"] * 6, [""] * 6, [""] * 6]
    path = table(folder, OWN, IMAGES, [0, 2, 0, 3, 0, 1], *rest)
    message = "label must be 0 (real) or 1 (fake), got 2; -1 stands for unknown; row 5: label"
    assert message in said(path)


def test_note__is_logged_once(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = table(folder, "file,class", IMAGES, words("real", "fake"))
    for number, image in enumerate(IMAGES):
        (folder / image).write_bytes(b"%d" % number)
    monkeypatch.setattr("dfl.data.modules.image_datamodule.find_shortcuts", lambda _: [])
    module = ImageDataModule(
        ManifestFile(path), crop=CenterCrop(8), splits=Splits(folder=folder / "splits")
    )
    with caplog.at_level(logging.INFO, logger="dfl"):
        module.prepare_data()
        module.setup()
    notes = [r.getMessage() for r in caplog.records if "path from" in r.getMessage()]
    assert notes == [f"{path}: path from 'file', label from 'class' (real = 'real', fake = 'fake')"]


def test_missing__ten_are_named(folder: Path) -> None:
    gone = [f"img/gone{i:02}.png" for i in range(12)]
    path = table(folder, "path,label", [*IMAGES, *gone], LABELS * 3)
    shown = ", ".join(gone[:10])
    assert said(path).startswith(f"12 of 18 images are missing under {folder}: {shown} and 2 more;")
    path = table(folder, "path,label", [Path(image).name for image in IMAGES], LABELS)
    assert f"{folder / 'img'} has the first of them: give that as root" in said(path)
    path = table(folder, "path,label", ["https://x.org/a.png"], [0])
    assert "download them" in said(path)
    path = table(folder, "path,label", ["img/0", "img/1"], [0, 1])
    assert "img/0.png is there: write the endings of their names" in said(path)
    path = table(folder, "path,label", ["/none/a.png"], [0])
    assert "make their paths relative and give their root" in said(path)


def test_header__a_line_of_excel(folder: Path) -> None:
    path = table(folder, "sep=;\npath;label", IMAGES, LABELS, sep=";")
    assert said(path) == "begins with 'sep=;', of Excel alone; remove it"


def test_rows__of_another_length_are_said_at_once(folder: Path) -> None:
    path = table(folder, "path", IMAGES, LABELS)
    assert said(path).startswith("rows 2, 3, 4, 5, 6, 7 have more fields than its header (2 and 1)")


def test_header__the_same_name_twice(folder: Path) -> None:
    with pytest.raises(ManifestError, match="has the column label twice"):
        scanned(table(folder, "path,label,label", IMAGES, LABELS, LABELS))
