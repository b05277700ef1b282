"""Extraction from images to the folder: once, resumed, refused."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dfl.data.images.views
from dfl.app.extraction import origin_of, run_extraction
from dfl.backbones import FusedBackbone
from dfl.backbones.runner import Runner
from dfl.commands.extract import extract
from dfl.data import ColorJitter, ImageDataModule, ManifestFile, RandomCrop, Resize
from dfl.errors import FeatureError, ImageError
from dfl.features import ExtractionDataModule
from dfl.features.extraction import Target
from dfl.folders import locked
from tests.data.sources.image_files import damaged_jpeg
from tests.features.small_extraction import backbone, expected, images, run


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr("dfl.features.shards._SHARD_ROWS", 4)
    monkeypatch.setattr("dfl.features.writer._UNDER_WAY", 0)
    return images(tmp_path / "images")


def _shards(tmp_path: Path) -> Path:
    (folder,) = tmp_path.glob(".f.*")
    return folder


def _interrupted(manifest: Path, tmp_path: Path) -> Path:
    """Stop after 10 of 12 images: two shards of four are there."""
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        run(manifest, tmp_path / "f", backbone(fail_after=10))
    assert not (tmp_path / "f").exists()
    return _shards(tmp_path)


def test_extract__equal_features_for_all_rows_of_an_image_from_one_pass(
    manifest: Path, tmp_path: Path
) -> None:
    counting = backbone()
    store = run(manifest, tmp_path / "f", counting)
    assert len(store.manifest) == 18
    assert counting.batches == [2] * 6
    np.testing.assert_allclose(store.matrix(), expected(store), atol=1e-6)
    assert store.layers() == ["m.mean", "m.square"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "images"]


def test_extract__finished_run_looks_at_no_image_again(
    manifest: Path, tmp_path: Path, capsys
) -> None:
    run(manifest, tmp_path / "f", backbone())
    written = (tmp_path / "f" / "features.json").stat().st_mtime_ns
    again = backbone()
    store = run(manifest, tmp_path / "f", again)
    assert again.batches == []
    assert "nothing to do, already there" in capsys.readouterr().out
    assert (tmp_path / "f" / "features.json").stat().st_mtime_ns == written
    np.testing.assert_allclose(store.matrix(), expected(store), atol=1e-6)


def test_extract__interrupted_run_goes_on(manifest: Path, tmp_path: Path) -> None:
    shards = _interrupted(manifest, tmp_path)
    assert [file.name for file in sorted(shards.glob("shard*"))] == [
        "shard-2-0000000.safetensors",
        "shard-2-0000001.safetensors",
    ]
    rest = backbone()
    store = run(manifest, tmp_path / "f", rest)
    assert rest.batches == [2, 2]
    np.testing.assert_allclose(store.matrix(), expected(store), atol=1e-6)
    assert not shards.exists()


def test_extract__joins_what_is_complete_without_a_pass(
    manifest: Path, tmp_path: Path, monkeypatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("dfl.folders.replace_folder", killed)
        with pytest.raises(SystemExit):
            run(manifest, tmp_path / "f", backbone())
    assert len(list(_shards(tmp_path).glob("shard*"))) == 3
    store = run(manifest, tmp_path / "f", backbone(fail_after=0))
    np.testing.assert_allclose(store.matrix(), expected(store), atol=1e-6)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-10]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_text("no tensors"),
        lambda file: _wrong_rows(file),
        lambda file: _wrong_layer(file),
    ],
    ids=["truncated", "empty", "text", "other rows", "other layer"],
)
def test_extract__damaged_shard_is_made_anew(
    manifest: Path, tmp_path: Path, damage, caplog
) -> None:
    caplog.set_level("INFO", "dfl")
    whole = _bytes(run(manifest, tmp_path / "f", backbone()).path)
    shutil.rmtree(tmp_path / "f")
    damage(_interrupted(manifest, tmp_path) / "shard-2-0000001.safetensors")
    rest = backbone()
    store = run(manifest, tmp_path / "f", rest)
    assert rest.batches == [2] * 4
    assert "1 of 3 shards are damaged; they are made anew" in caplog.text
    assert _bytes(store.path) == whole


def test_extract__damaged_shard_counts_as_missing_from_the_start(
    manifest: Path, tmp_path: Path
) -> None:
    """Who waits for the other processes goes by which shards are there, and reads none."""
    folder = _interrupted(manifest, tmp_path)
    (folder / "shard-2-0000000.safetensors").write_bytes(b"")
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        run(manifest, tmp_path / "f", backbone(fail_after=0))
    assert [file.name for file in folder.glob("shard*")] == ["shard-2-0000001.safetensors"]


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _flip(folder / "m.square.npy"),
        lambda folder: _flip(folder / "manifest.csv"),
        lambda folder: (folder / "m.mean.npy").unlink(),
    ],
    ids=["matrix", "manifest", "missing"],
)
def test_extract__damaged_result_is_made_anew(
    manifest: Path, tmp_path: Path, damage, caplog
) -> None:
    caplog.set_level("INFO", "dfl")
    whole = _bytes(run(manifest, tmp_path / "f", backbone()).path)
    damage(tmp_path / "f")
    store = run(manifest, tmp_path / "f", backbone())
    assert "damaged; it is made anew" in caplog.text
    assert _bytes(store.path) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "images"]


def test_extract__description_that_is_damaged_is_replaced_only_when_asked(
    manifest: Path, tmp_path: Path
) -> None:
    whole = _bytes(run(manifest, tmp_path / "f", backbone()).path)
    _flip(tmp_path / "f" / "features.json")
    with pytest.raises(FeatureError, match=r"features.json: damaged.* --overwrite"):
        run(manifest, tmp_path / "f", backbone())
    assert _bytes(run(manifest, tmp_path / "f", backbone(), overwrite=True).path) == whole


def test_extract__waits_for_another_that_makes_the_same(
    manifest: Path, tmp_path: Path, caplog
) -> None:
    caplog.set_level("INFO", "dfl")
    waiting = "another process is making it; waiting for that"
    with ExitStack() as stack:
        stack.enter_context(locked(tmp_path / "f"))

        def release() -> None:
            until = time.monotonic() + 60
            while waiting not in caplog.text and time.monotonic() < until:
                time.sleep(0.01)
            stack.close()

        other = threading.Thread(target=release)
        other.start()
        store = run(manifest, tmp_path / "f", backbone())
        other.join()
    assert waiting in caplog.text
    np.testing.assert_allclose(store.matrix(), expected(store), atol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "images"]


def test_extract__a_note_of_a_killed_run_is_not_that_of_the_holder(
    manifest: Path, tmp_path: Path, monkeypatch
) -> None:
    """Who gets the lock after it may not have written its own note yet."""
    notes = iter(["ab" * 32])

    @contextmanager
    def raced(folder: Path, *, note: str, on_wait: Callable[[str], None]) -> Iterator[None]:
        for found in (*notes, note):
            on_wait(found)
        with locked(folder, note=note):
            yield

    monkeypatch.setattr("dfl.features.extraction.locked", raced)
    assert len(run(manifest, tmp_path / "f", backbone()).manifest) == 18


def test_extract__does_not_wait_for_one_that_makes_other_features(
    manifest: Path, tmp_path: Path
) -> None:
    made = backbone()
    with (
        locked(tmp_path / "f", note="ab" * 32),
        pytest.raises(FeatureError, match="is making other features there; name another folder"),
    ):
        run(manifest, tmp_path / "f", made)
    assert made.batches == []


def _wrong_rows(file: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_file({name: value[:3].copy() for name, value in load_file(file).items()}, file)


def _wrong_layer(file: Path) -> None:
    from safetensors.numpy import load_file, save_file

    save_file({f"x{name}": value for name, value in load_file(file).items()}, file)


def test_extract__other_features_are_replaced_only_when_asked(
    manifest: Path, tmp_path: Path
) -> None:
    before = run(manifest, tmp_path / "f", backbone()).matrix().copy()
    other = backbone(power=3)
    with pytest.raises(FeatureError, match=r"holds other features .* --overwrite"):
        run(manifest, tmp_path / "f", other)
    assert other.batches == []
    store = run(manifest, tmp_path / "f", other, overwrite=True)
    assert other.batches == [2] * 6
    np.testing.assert_array_equal(store.matrix(["m.mean"]), before[:, :3])
    assert not np.array_equal(store.matrix(["m.square"]), before[:, 3:])


def test_extract__a_changed_image_makes_other_features(manifest: Path, tmp_path: Path) -> None:
    run(manifest, tmp_path / "f", backbone())
    (manifest.parent / "03.png").write_bytes((manifest.parent / "05.png").read_bytes())
    with pytest.raises(FeatureError, match="holds other features"):
        run(manifest, tmp_path / "f", backbone())


def test_extract__through_a_link_to_another_disk(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "f").symlink_to(tmp_path / "large" / "f")
    for batches in ([2] * 6, []):
        made = backbone()
        run(manifest, tmp_path / "f", made)
        assert made.batches == batches
        assert (tmp_path / "f").is_symlink()
    assert [path.name for path in (tmp_path / "large").iterdir()] == ["f"]


def test_target__no_mount_point() -> None:
    with pytest.raises(FeatureError, match=r"is where a disk is mounted.*; name a folder in it"):
        Target(Path("/proc"), "v", (), {})


@pytest.mark.parametrize("is_put_back", [False, True])
def test_extract__an_image_that_changes_meanwhile_is_an_error(
    manifest: Path, tmp_path: Path, monkeypatch, is_put_back: bool
) -> None:
    """It is hashed at the start and decoded later; no shard may hold features of something else."""
    image = manifest.parent / "09.png"
    content, times = image.read_bytes(), image.stat()
    read = dfl.data.images.views.read_image

    def changing(path: Path) -> bytes:
        if path.name == "04.png":
            Image.new("RGB", (9, 8), (1, 2, 3)).save(image)
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(dfl.data.images.views, "read_image", changing)
        with pytest.raises(FeatureError, match=r"09\.png: was changed since .*; run the same"):
            run(manifest, tmp_path / "f", backbone())
    assert not (tmp_path / "f").exists()

    if is_put_back:
        image.write_bytes(content)
        os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    store = run(manifest, tmp_path / "f", backbone())
    found, wanted = store.matrix(["m.mean"]), expected(store)[:, :3]
    if not is_put_back:
        wanted[store.manifest.frame["path"].tolist().index("09.png")] = np.array([1, 2, 3]) / 255
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_extract__an_image_that_stopped_it_is_mended_and_the_rest_is_kept(
    manifest: Path, tmp_path: Path, caplog
) -> None:
    """It takes hours until a damaged image is met; what was made by then is not made again."""
    caplog.set_level("INFO", "dfl")
    broken = manifest.parent / "11.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:50])
    with pytest.raises(ImageError, match=r"11\.png: cannot be decoded"):
        run(manifest, tmp_path / "f", backbone())
    broken.write_bytes(content)
    rest = backbone()
    store = run(manifest, tmp_path / "f", rest)
    assert rest.batches == [2] * 4  # what was under way then is lost
    assert "1 of 3 shards were made of the same images before and are kept" in caplog.text
    np.testing.assert_allclose(store.matrix(), expected(store), atol=1e-6)
    whole = run(manifest, tmp_path / "whole", backbone()).path
    for name in ("m.mean.npy", "m.square.npy", "manifest.csv"):
        assert (store.path / name).read_bytes() == (whole / name).read_bytes()


def test_extract__names_all_unreadable_images_and_says_what_is_damaged(
    manifest: Path, tmp_path: Path, caplog, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where the tables are
    kept = {name: (manifest.parent / name).read_bytes() for name in ("02.png", "05.png")}
    for name in kept:
        (manifest.parent / name).write_text(f"<html>404: {name}</html>")
    with pytest.raises(ImageError, match=r"^2 of 12 images cannot be read: 02.png, 05.png \(2 tim"):
        run(manifest, tmp_path / "f", backbone())
    for name, content in kept.items():
        (manifest.parent / name).write_bytes(content)
    damaged_jpeg(manifest.parent / "05.png")
    run(manifest, tmp_path / "f", backbone())
    (said,) = [message for message in caplog.messages if "damaged" in message]
    assert said.startswith("damaged images that were read all the same: 1, listed in splits/")
    (table,) = tmp_path.glob("splits/*-damaged.csv")
    assert table.read_text().startswith("path,reason\n05.png,Corrupt JPEG data")


def test_extract__an_interrupted_one_of_other_features_is_named(
    manifest: Path, tmp_path: Path, caplog
) -> None:
    caplog.set_level("INFO", "dfl")
    left = _interrupted(manifest, tmp_path)
    run(manifest, tmp_path / "f", backbone(power=3))
    assert f"{left}: of an extraction of other images" in caplog.text
    assert len(list(left.glob("shard*"))) == 2
    shutil.rmtree(tmp_path / "f")
    caplog.clear()
    rest = backbone()
    run(manifest, tmp_path / "f", rest)
    assert rest.batches == [2, 2]
    assert "other images" not in caplog.text


def test_extract__notes_where_moved_images_are_now(manifest: Path, tmp_path: Path) -> None:
    before = run(manifest, tmp_path / "f", backbone())
    moved = shutil.move(manifest.parent, tmp_path / "elsewhere") / manifest.name
    again = backbone()
    store = run(moved, tmp_path / "f", again)
    assert again.batches == []
    assert (before.manifest.root, store.manifest.root) == (manifest.parent, moved.parent)
    assert not store.damaged()
    assert store.metadata["fingerprint"] == before.metadata["fingerprint"]


def test_extract__says_how_it_was_made(manifest: Path, tmp_path: Path) -> None:
    run(manifest, tmp_path / "f", backbone())
    document = json.loads((tmp_path / "f" / "features.json").read_text())
    assert document["backbones"]["m"]["init_args"] == {"power": 2, "fail_after": 10**9}
    assert document["preprocess"]["crop"]["init_args"]["size"] == 8
    assert document["precision"] == "32-true"
    assert {"dfl", "torch", "timm"} <= document["versions"].keys()


def test_data__only_within_a_trainer(manifest: Path, tmp_path: Path) -> None:
    source = ImageDataModule(ManifestFile(manifest), crop=Resize(8), batch_size=2)
    data = ExtractionDataModule({"v": source}, [], execution={})
    assert data.predict_dataloader() == []
    with pytest.raises(RuntimeError, match="only used by a Trainer"):
        data.setup("predict")


class Together:
    """Two views of two backbones, to a folder each, in one extraction."""

    def __init__(self, manifest: Path, root: Path) -> None:
        source = ImageDataModule(ManifestFile(manifest), crop=RandomCrop(6), batch_size=2)
        source.prepare_data()
        source.setup()
        self.views = {
            "plain": source.of(source.manifest),
            "jittered": source.of(source.manifest, eval_transforms=[ColorJitter(brightness=0.5)]),
        }
        self.backbones = {"m": backbone(), "n": backbone(power=3)}
        self.root = root

    def run(self) -> ExtractionDataModule:
        runner = Runner(FusedBackbone(self.backbones))
        for made in self.backbones.values():
            made.batches.clear()
        targets = [
            Target(
                self.root / view / name,
                view,
                tuple(layer for layer in runner.spec if layer.name.startswith(f"{name}.")),
                origin_of({name: self.backbones[name]}, self.views[view], runner),
            )
            for view in self.views
            for name in self.backbones
        ]
        images = ExtractionDataModule(self.views, targets, execution=runner.description)
        run_extraction(images, runner, "cpu", 1, 1, "auto")
        return images

    def passes(self) -> dict[str, int]:
        return {name: sum(made.batches) for name, made in self.backbones.items()}


def test_run_extraction__several_views_and_backbones_equal_each_alone(
    manifest: Path, tmp_path: Path, monkeypatch
) -> None:
    decoded: list[str] = []
    read = dfl.data.images.views.read_image
    monkeypatch.setattr(
        dfl.data.images.views, "read_image", lambda path: (decoded.append(path.name), read(path))[1]
    )
    together = Together(manifest, tmp_path / "f")
    together.run()
    assert together.passes() == {"m": 24, "n": 24}
    assert sorted(decoded) == [f"{i:02d}.png" for i in range(12)]
    for view, data in together.views.items():
        for name, made in together.backbones.items():
            alone = extract(
                data, {name: made}, tmp_path / "alone" / view / name, accelerator="cpu", devices=1
            )
            assert _bytes(alone.path) == _bytes(tmp_path / "f" / view / name)
    plain, jittered = (tmp_path / "f" / view / "m" / "m.mean.npy" for view in together.views)
    assert plain.read_bytes() != jittered.read_bytes()


def test_run_extraction__only_what_is_missing(manifest: Path, tmp_path: Path) -> None:
    together = Together(manifest, tmp_path / "f")
    together.run()
    whole = _bytes(tmp_path / "f" / "jittered" / "n")
    shutil.rmtree(tmp_path / "f" / "jittered" / "n")
    _flip(tmp_path / "f" / "plain" / "n" / "n.mean.npy")
    images = together.run()
    assert sorted(images.plans) == [1, 3]
    assert together.passes() == {"m": 0, "n": 24}
    assert _bytes(tmp_path / "f" / "jittered" / "n") == whole
    together.run()
    assert together.passes() == {"m": 0, "n": 0}


def test_run_extraction__goes_on_in_the_batches_it_was_begun_with(
    manifest: Path, tmp_path: Path
) -> None:
    together = Together(manifest, tmp_path / "f")
    together.backbones["n"].fail_after = 10
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        together.run()
    begun = {path.name for path in (tmp_path / "f" / "plain").glob(".m.*/shard-*")}
    assert begun
    together.backbones["n"].fail_after = 10**9
    for view in together.views.values():
        view.batch_size = 3
    together.run()
    assert all(0 < count < 24 for count in together.passes().values())
    other = Together(manifest, tmp_path / "g")
    other.run()
    for view in together.views:
        for name in together.backbones:
            ours, theirs = (_bytes(tmp_path / root / view / name) for root in "fg")
            assert ours == theirs
