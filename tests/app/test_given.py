from pathlib import Path

from dfl.app.given import settings, tree_of, with_flags, with_lists
from dfl.app.signature import signature_of


def test_flags__have_a_value() -> None:
    look = signature_of("tests.app.commands_to_read.look")
    assert look is not None
    assert with_flags(look, ["--folder", "--times", "2", "--no_sharp"]) == [
        *("--folder=true", "--times", "2", "--sharp=false"),
    ]
    for given in (["--folder=true"], ["--folder", "false"], ["--times"], []):
        assert with_flags(look, given) == given


def test_tree__files_and_options_in_their_order(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("crop.yaml").write_text("{class_path: dfl.data.Resize, init_args: {size: 32}}\n")
    Path("c.yaml").write_text("{data.crop: crop.yaml, out: a, seeds: [1, 2]}\n")
    args = ["-c", "c.yaml", "--data.crop.size", "48", "--out=b", "--layers+=x", "--overwrite"]
    assert tree_of(list(settings(args))) == {
        "data": {"crop": {"class_path": "dfl.data.Resize", "init_args": {"size": 48}}},
        "out": "b",
        "seeds": [1, 2],
        "layers": "x",
        "overwrite": None,
    }


def test_tree__another_class_keeps_the_arguments_that_it_takes() -> None:
    given = {"class_path": "dfl.data.MultiCrop", "init_args": {"size": 32, "count": 5}}
    for name, value in (("crop", "Resize"), ("crop.class_path", "Resize"), ("crop.size", 48)):
        tree = tree_of([("crop", given), ("crop", "Resize"), (name, value)])
        size = 48 if name == "crop.size" else 32
        assert tree == {"crop": {"class_path": "Resize", "init_args": {"size": size}}}
    assert tree_of([("crop.size", 32), ("crop", "Resize")]) == {
        "crop": {"class_path": "Resize", "init_args": {"size": 32}}
    }


def test_lists__values_behind_an_option() -> None:
    args = ["--images", "a b.jpg", 'c".jpg', "--out", "x.csv", "--config", "1.yaml", "2.yaml"]
    assert with_lists([*args, "--flag", "--n=1", "--seeds", "1", "2"]) == [
        *('--images=["a b.jpg", "c\\".jpg"]', "--out", "x.csv"),
        *("--config=1.yaml", "--config=2.yaml", "--flag", "--n=1", '--seeds=["1", "2"]'),
    ]
    for given in (["stray", "--out", "x"], ["--out=x", "stray", "other"], ["-c", "x.yaml"], []):
        assert with_lists(given) == given
