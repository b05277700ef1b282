import json
import re
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dfl.data.manifest.manifest import Manifest
from dfl.errors import FeatureError
from dfl.features.store import FEATURES, FeatureStore, new_store
from dfl.types import FeatureLayer, FeatureOrigin

SPEC = (
    FeatureLayer("clip.pooled", 3, "aa"),
    FeatureLayer("clip.block1.cls", 2, "bb"),
    FeatureLayer("dino.pooled", 4, "cc"),
)


def _write(out: Path, *, overwrite: bool = False, value: float = 0.0) -> dict[str, np.ndarray]:
    frame = pd.DataFrame(
        {
            "path": [f"a/{i}.png" for i in range(5)],
            "label": [0, 1, 0, 1, 1],
            "dataset": "a",
            "generator": ["real", "g", "real", "g", "g"],
            "split": ["train", "train", "test", "test", "val"],
            "group": [f"a/{i}.png" for i in range(5)],
        }
    )
    rng = np.random.default_rng(0)
    written = {}
    with new_store(
        out,
        Manifest(frame, Path("images")),
        spec=SPEC,
        metadata={"preprocess": None},
        overwrite=overwrite,
    ) as matrices:
        for layer in SPEC:
            written[layer.name] = rng.normal(value, 1, (5, layer.dim)).astype(np.float32)
            matrices[layer.name][:] = written[layer.name]
    return written


def test_store__round_trip_without_the_images(tmp_path: Path) -> None:
    written = _write(tmp_path / "f")
    store = FeatureStore.open(tmp_path / "f")
    assert store.spec == SPEC
    assert store.manifest.root == Path("images")
    assert store.manifest.frame["label"].tolist() == [0, 1, 0, 1, 1]
    np.testing.assert_array_equal(store.matrix(), np.concatenate(list(written.values()), axis=1))
    by_hand = np.load(tmp_path / "f" / "dino.pooled.npy", mmap_mode="r")
    np.testing.assert_array_equal(by_hand, written["dino.pooled"])
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_matrix__layers_backbones_and_rows(tmp_path: Path) -> None:
    written = _write(tmp_path / "f")
    store = FeatureStore.open(tmp_path / "f")
    rows = np.array([4, 0, 0])
    asked = store.matrix(["dino", "clip.pooled"], rows=rows)
    expected = np.concatenate([written["dino.pooled"], written["clip.pooled"]], axis=1)[rows]
    np.testing.assert_array_equal(asked, expected)
    assert [layer.name for layer in store.select(["clip"])] == ["clip.pooled", "clip.block1.cls"]
    assert [layer.name for layer in store.select(["clip", "clip.pooled"])] == [
        "clip.pooled",
        "clip.block1.cls",
    ]


def test_select__unknown_layer_lists_what_there_is(tmp_path: Path) -> None:
    _write(tmp_path / "f")
    with pytest.raises(
        FeatureError, match=re.escape("no layer 'vit'; it has: clip.pooled, clip.b")
    ):
        FeatureStore.open(tmp_path / "f").select(["vit"])


def test_new_store__does_not_replace_unasked(tmp_path: Path) -> None:
    first = _write(tmp_path / "f")
    with pytest.raises(FeatureError, match="already holds other features"):
        _write(tmp_path / "f", value=9)
    np.testing.assert_array_equal(
        FeatureStore.open(tmp_path / "f").matrix(["dino"]), first["dino.pooled"]
    )
    second = _write(tmp_path / "f", overwrite=True, value=9)
    np.testing.assert_array_equal(
        FeatureStore.open(tmp_path / "f").matrix(["dino"]), second["dino.pooled"]
    )


def test_new_store__failure_leaves_nothing(tmp_path: Path) -> None:
    manifest = Manifest(pd.DataFrame({"path": []}), tmp_path)
    with (
        pytest.raises(RuntimeError),
        new_store(tmp_path / "f", manifest, spec=SPEC, metadata={}),
    ):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def _damage_matrix(folder: Path) -> None:
    file = folder / "dino.pooled.npy"
    file.write_bytes(file.read_bytes()[:-8])


def _wrong_shape(folder: Path) -> None:
    np.save(folder / "dino.pooled.npy", np.zeros((5, 9), np.float32))


def _other_format(folder: Path) -> None:
    file = folder / "features.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_damage_matrix, "missing or damaged; run `dfl extract` again"),
        (_wrong_shape, r"holds float32 \(5, 9\), expected float32 \(5, 4\)"),
        (_other_format, "format 99, this version reads 4"),
        (lambda f: (f / "dino.pooled.npy").unlink(), "missing or damaged"),
        (lambda f: (f / "features.json").write_text("{"), "damaged"),
        (lambda f: (f / "features.json").unlink(), "not a finished feature folder"),
    ],
)
def test_open__damage_is_one_line(tmp_path: Path, damage, message: str) -> None:
    _write(tmp_path / "f")
    damage(tmp_path / "f")
    with pytest.raises(FeatureError, match=message) as caught:
        FeatureStore.open(tmp_path / "f")
    assert "\n" not in str(caught.value)


def test_open__missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match="no such feature folder; make it with `dfl extract`"):
        FeatureStore.open(tmp_path / "f")


@pytest.mark.parametrize("overwrite", [False, True])
def test_new_store__never_replaces_what_is_not_features(tmp_path: Path, overwrite: bool) -> None:
    _write(tmp_path / "f")
    (tmp_path / "f" / "thesis.txt").write_text("all of it")
    with pytest.raises(FeatureError, match=r"thesis.txt is no part of a feature folder"):
        _write(tmp_path / "f", overwrite=overwrite)
    (tmp_path / "file").touch()
    with pytest.raises(FeatureError, match="is a file; name a folder"):
        _write(tmp_path / "file", overwrite=overwrite)
    assert (tmp_path / "f" / "thesis.txt").read_text() == "all of it"


def test_new_store__replaces_what_a_kill_left_in_a_folder(tmp_path: Path) -> None:
    _write(tmp_path / "f")
    for name in (".config.77-0a1b2c3d.yaml", ".features.77-0a1b2c3d.json"):
        (tmp_path / "f" / name).write_text("half of")
    _write(tmp_path / "f", overwrite=True)
    assert not list((tmp_path / "f").glob(".*"))


def test_new_store__through_a_link(tmp_path: Path) -> None:
    (tmp_path / "large_disk").mkdir()
    (tmp_path / "f").symlink_to(tmp_path / "large_disk" / "f")
    for overwrite in (False, True):
        _write(tmp_path / "f", overwrite=overwrite)
        assert (tmp_path / "f").is_symlink()
        assert len(FeatureStore.open(tmp_path / "large_disk" / "f").manifest) == 5
        assert [path.name for path in (tmp_path / "large_disk").iterdir()] == ["f"]


def test_new_store__two_at_once_write_one_after_the_other(tmp_path: Path) -> None:
    manifest = Manifest(pd.DataFrame({"path": []}), tmp_path)
    with new_store(tmp_path / "f", manifest, spec=SPEC, metadata={}):
        second = threading.Thread(target=_write, args=(tmp_path / "f",), kwargs={"overwrite": True})
        second.start()
        second.join(0.5)
        assert second.is_alive()
    second.join()
    assert len(FeatureStore.open(tmp_path / "f").manifest) == 5


def test_new_store__another_run_was_faster(tmp_path: Path) -> None:
    manifest = Manifest(pd.DataFrame({"path": []}), tmp_path)
    (tmp_path / "work").mkdir()
    with (
        pytest.raises(FeatureError, match="already holds other features"),
        new_store(tmp_path / "f", manifest, spec=SPEC, metadata={}, workspace=tmp_path / "work"),
    ):
        _write(tmp_path / "f")
    FeatureStore.open(tmp_path / "f")


def test_new_store__removes_what_killed_runs_left(tmp_path: Path) -> None:
    (tmp_path / ".f.new.abcd_123").mkdir()
    (tmp_path / ".f.old.1-0a1b2c3d").mkdir()
    others = {".g.new.abcd_123", ".f.new.0123456789ab", ".f.new.lock"}  # the last two of "f.new"
    for name in others:
        (tmp_path / name).mkdir()
    _write(tmp_path / "f", overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {*others, "f"}


def test_new_store__full_disk_is_one_line(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dfl.features.matrices._fallocate", full)
    with pytest.raises(FeatureError, match=r"disk is full .* run the same command again") as caught:
        _write(tmp_path / "f")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_new_store__same_bytes_every_time(tmp_path: Path) -> None:
    for name in "fg":
        _write(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "f").iterdir())
    assert files == [
        "clip.block1.cls.npy",
        "clip.pooled.npy",
        "dino.pooled.npy",
        "features.json",
        "manifest.csv",
    ]
    for name in files:
        assert (tmp_path / "f" / name).read_bytes() == (tmp_path / "g" / name).read_bytes()


@pytest.mark.parametrize("file", ["dino.pooled.npy", "clip.pooled.npy"])
def test_damaged__a_flipped_bit_of_a_matrix_is_found(tmp_path: Path, file: str) -> None:
    _write(tmp_path / "f")
    assert FeatureStore.open(tmp_path / "f").damaged() == []
    _flip(tmp_path / "f" / file, -7)
    assert FeatureStore.open(tmp_path / "f").damaged() == [tmp_path / "f" / file]


@pytest.mark.parametrize("file", ["manifest.csv", "features.json"])
def test_open__a_flipped_bit_of_a_table_is_found(tmp_path: Path, file: str) -> None:
    _write(tmp_path / "f")
    size = (tmp_path / "f" / file).stat().st_size
    for place in range(0, size, max(1, size // 20)):
        _flip(tmp_path / "f" / file, place)
        with pytest.raises(FeatureError, match=r"damaged|was changed|format"):
            FeatureStore.open(tmp_path / "f")
        _flip(tmp_path / "f" / file, place)
    assert FeatureStore.open(tmp_path / "f").damaged() == []


def _flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def test_select__keeps_the_layers_of_a_backbone_together(tmp_path: Path) -> None:
    _write(tmp_path / "f")
    chosen = FeatureStore.open(tmp_path / "f").select(
        ["clip.block1.cls", "dino.pooled", "clip.pooled"]
    )
    assert [layer.name for layer in chosen] == ["clip.block1.cls", "clip.pooled", "dino.pooled"]


def test_open__missing_manifest(tmp_path: Path) -> None:
    _write(tmp_path / "f")
    (tmp_path / "f" / "manifest.csv").unlink()
    with pytest.raises(FeatureError, match="run `dfl extract` again"):
        FeatureStore.open(tmp_path / "f")


CLIP = {"class_path": "c", "init_args": {"layers": ["pooled", "block1.cls"], "size": 32}}
DINO = {"class_path": "d", "init_args": {"layers": ["pooled"]}}


RUN = {"precision": "bf16-mixed", "engine": "eager"}


def _origin(out: Path, backbones: object, layers: list[str]) -> FeatureOrigin:
    made_by = {"backbones": backbones, "preprocess": {"is": "square"}, **RUN, "versions": {}}
    manifest = Manifest(pd.DataFrame({"path": []}), out)
    with new_store(out, manifest, spec=SPEC, metadata=made_by, overwrite=True):
        pass
    return FeatureStore(out, SPEC, manifest, FEATURES.read(out), (0, 0)).origin(layers)


def test_origin__those_and_the_layers_that_are_used(tmp_path: Path) -> None:
    known = {"clip": CLIP, "dino": DINO}
    found, preprocess, execution = _origin(tmp_path / "f", known, ["clip.block1.cls"])
    assert found == {"clip": CLIP | {"init_args": {"layers": ["block1.cls"], "size": 32}}}
    assert (preprocess, execution) == ({"is": "square"}, RUN)
    both, *_ = _origin(tmp_path / "f", known, ["dino.pooled", "clip.pooled"])
    assert isinstance(both, dict)
    assert list(both) == ["dino", "clip"]


@pytest.mark.parametrize("backbones", [None, {}, {"clip": None}, {"clip": {"class_path": "c"}}])
def test_origin__not_known(tmp_path: Path, backbones: object) -> None:
    assert _origin(tmp_path / "f", backbones, ["clip.pooled"]) == (None, {"is": "square"}, RUN)
