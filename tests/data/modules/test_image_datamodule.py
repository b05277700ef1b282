import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

import dfl.app.register  # noqa: F401 - short names of classes
from dfl.app.parser import run_command
from dfl.data import (
    JPEG,
    CenterCrop,
    ColorJitter,
    Folder,
    HorizontalFlip,
    ImageDataModule,
    ImageSet,
    Manifest,
    ManifestFile,
    Pair,
    Pairs,
    RandomCrop,
    Resize,
    Source,
    Splits,
    Tree,
)
from dfl.data.images.dataset import ImageDataset
from dfl.data.images.preprocess import Draw, SameFor
from dfl.data.images.views import FixedBatch
from dfl.errors import ConfigError, DataError, DflError, ImageError, ManifestError
from dfl.recipe import fingerprint_of
from dfl.types import UNKNOWN, Batch
from tests.conftest import REPOSITORY
from tests.data.packing import pack_data
from tests.data.sources.image_files import damaged_jpeg

CROP = CenterCrop(16)
CONFIGS = REPOSITORY / "configs" / "data"


def pair_module(
    root: Path, folder: Path, pairs: dict[str, Pair] | None = None, **settings: object
) -> ImageDataModule:
    pairs = pairs or {"alpha": Pair("alpha", "alpha"), "mixed": Pair("alpha", "beta")}
    fractions = {name: settings.pop(name) for name in list(settings) if name.endswith("_fraction")}
    splits = Splits(**fractions, folder=folder)
    return ImageDataModule(Pairs(root, pairs), **{"crop": CROP, "splits": splits, **settings})


def ready(module: ImageDataModule) -> ImageDataModule:
    module.prepare_data()
    module.setup()
    return module


def test_prepare_data__one_of_several_processes_does_it(image_root: Path, tmp_path: Path) -> None:
    """The others wait for the file that it writes; threads lock as processes do."""
    modules = [pair_module(image_root, tmp_path) for _ in range(3)]
    with pytest.MonkeyPatch.context() as patch:
        joined: list[Manifest] = []

        def join_slowly(manifest: Manifest, **options: object) -> Manifest:
            joined.append(manifest)
            time.sleep(0.3)
            return manifest

        patch.setattr("dfl.data.modules.image_datamodule.join_identical", join_slowly)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(ImageDataModule.prepare_data, modules))
    assert len(joined) == 1
    assert [path.name for path in tmp_path.iterdir()] == [modules[0].split_file.name]


def test_setup__one_of_several_processes_says_what_is_found(
    image_root: Path, tmp_path: Path, monkeypatch, caplog
) -> None:
    """Before a trainer is there, as in a study; to look for shortcuts images are read."""
    caplog.set_level("INFO", logger="dfl")
    pair_module(image_root, tmp_path).prepare_data()
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setattr("dfl.data.modules.image_datamodule.find_shortcuts", lambda _: 1 / 0)
    caplog.clear()
    ready(pair_module(image_root, tmp_path))
    assert [record.getMessage() for record in caplog.records] == [
        f"splits: reading {pair_module(image_root, tmp_path).split_file}"
    ]


def paths_of(loader) -> list[str]:
    return [path for batch in loader for path in batch["path"]]


class Recorder(LightningModule):
    """A task that remembers which images it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: dict[str, list[tuple[int, str, int]]] = {}
        self.epochs: list[Tensor] = []

    def remember(self, stage: str, batch: Batch) -> Tensor:
        rows = zip(batch["index"].tolist(), batch["path"], batch["label"].tolist(), strict=True)
        self.seen.setdefault(stage, []).extend(rows)
        return self.layer(batch["image"].float().mean().reshape(1, 1)).sum()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if 0 in batch["index"].tolist():
            self.epochs.append(batch["image"][batch["index"].tolist().index(0)])
        return self.remember(f"train{self.current_epoch}", batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.remember("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.remember("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.remember("predict", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return Trainer(
        default_root_dir=tmp_path,
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
    )


# https://github.com/Lightning-AI/pytorch-lightning/issues/21326
@pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)`:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_pair_module__through_the_trainer(
    image_root: Path, tmp_path: Path, trainer: Trainer
) -> None:
    module = pair_module(
        image_root,
        tmp_path,
        batch_size=5,
        train_crop=RandomCrop(16),
        train_transforms=[ColorJitter(brightness=(0.3, 1.7))],
    )
    task = Recorder()
    trainer.fit(task, module)
    trainer.test(task, module, verbose=False)
    trainer.predict(task, module, return_predictions=False)
    frame = module.manifest.frame
    for stage, split in (("val", "val"), ("test", "test")):
        rows = frame.index[frame["split"] == split].tolist()
        assert sorted({row for row, _, _ in task.seen[stage]}) == rows
    train = set(frame[frame["split"] == "train"]["path"])
    for epoch in (0, 1):
        seen = [path for _, path, _ in task.seen[f"train{epoch}"]]
        assert len(seen) == len(set(seen))
        assert set(seen) == train
    assert [row for row, _, _ in task.seen["predict"]] == list(frame.index)
    assert all(frame["label"][row] == label for row, _, label in task.seen["predict"])
    if frame["split"][0] == "train":
        assert not torch.equal(task.epochs[0], task.epochs[1])


def test_pair_module__split_file_is_a_manifest_that_is_read_back(
    image_root: Path, tmp_path: Path
) -> None:
    first = ready(pair_module(image_root, tmp_path / "splits"))
    (file,) = (tmp_path / "splits").iterdir()
    assert file == first.split_file
    assert file.name.startswith("alpha+mixed-")
    Manifest.read(file, image_root).validate(str(file))
    edited = file.read_text().replace(",train,", ",val,")
    file.write_text(edited)
    assert set(ready(pair_module(image_root, tmp_path / "splits")).manifest.frame["split"]) == {
        "val",
        "test",
    }


def test_pair_module__splits_follow_from_seed_and_names_alone(
    image_root: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(image_root, tmp_path / "elsewhere"))
    one = ready(pair_module(image_root, tmp_path / "a"))
    two = ready(pair_module(moved, tmp_path / "b"))
    other = ready(pair_module(image_root, tmp_path / "a", seed=1))
    assert one.split_file.read_bytes() == two.split_file.read_bytes()
    # the same split, but each root has its file: sets of equal names never meet another's
    assert len({module.split_file.name for module in (one, two, other)}) == 3
    assert one.manifest.frame["split"].tolist() != other.manifest.frame["split"].tolist()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"test_fraction": 0.3},
        {"val_fraction": 0.3},
        {"on_unreadable": "skip"},
        {"pairs": {"alpha": Pair("alpha", ImageSet("alpha", group="(.+)"))}},
    ],
)
def test_pair_module__file_name_tells_settings_apart(
    image_root: Path, tmp_path: Path, change: dict
) -> None:
    plain = pair_module(image_root, tmp_path, {"alpha": Pair("alpha", "alpha")})
    assert (
        pair_module(image_root, tmp_path, **{"pairs": plain.source.pairs, **change}).split_file
        != plain.split_file
    )


def test_pair_module__images_that_changed(image_copy: Path, tmp_path: Path) -> None:
    ready(pair_module(image_copy, tmp_path / "splits"))
    (image_copy / "alpha/0_real/000.png").rename(image_copy / "alpha/0_real/new.png")
    (image_copy / "beta/1_fake/000.png").unlink()
    with pytest.raises(
        DataError, match=r"2 are new and 3 are gone; delete the file, or set another"
    ):
        ready(pair_module(image_copy, tmp_path / "splits"))


def test_pair_module__not_prepared(image_root: Path, tmp_path: Path) -> None:
    module = pair_module(image_root, tmp_path)
    with pytest.raises(DataError, match="is not set up"):
        _ = module.manifest
    with pytest.raises(DataError, match=r"no such split file; call prepare_data\(\) first"):
        module.setup()


def test_pair_module__shared_file_writes_nothing(image_copy: Path, tmp_path: Path) -> None:
    shutil.copy(image_copy / "alpha/0_real/000.png", image_copy / "beta/1_fake/zzz.png")
    module = pair_module(image_copy, tmp_path / "splits")
    with pytest.raises(ManifestError, match="have the same content"):
        module.prepare_data()
    assert not list((tmp_path / "splits").iterdir())


def test_pair_module__label_conflicts_are_left_out_by_choice(
    image_copy: Path, tmp_path: Path
) -> None:
    shutil.copy(image_copy / "alpha/0_real/000.png", image_copy / "beta/1_fake/zzz.png")
    for _ in range(2):  # written, then read back
        module = ready(pair_module(image_copy, tmp_path, on_label_conflict="skip"))
        assert len(module.manifest) == 2 * 24 - 2
        assert "beta/1_fake/zzz.png" in module.conflict_file.read_text()
    other = pair_module(image_copy, tmp_path)
    assert other.split_file != module.split_file
    with pytest.raises(ManifestError, match="set on_label_conflict to skip"):
        other.prepare_data()


@pytest.fixture
def published(image_root: Path, tmp_path: Path) -> Path:
    """A set with the parts Train and test, and one class of each in a folder."""
    root = tmp_path / "set"
    for pair, part in (("alpha", "Train"), ("beta", "test")):
        shutil.copytree(image_root / pair, root / part)
    return root


def test_published__is_kept_and_said(
    published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        module = ready(ImageDataModule(Tree(published), crop=CROP, splits=Splits(folder=tmp_path)))
    frame = module.manifest.frame
    assert set(frame["split"][frame["path"].str.startswith("test/")]) == {"test"}
    assert set(frame["split"][frame["path"].str.startswith("Train/")]) == {"train", "val"}
    said = caplog.messages
    assert "set: as published, 24 images in Train/ are train, 24 images in test/ are test" in said
    assert (
        "set: 2 images of its training part are validated on, since it has no validation part; "
        "splits.val_fraction 0 trains on them"
    ) in said
    assert len([line for line in said if "as published" in line]) == 1
    assert (
        "48 images keep the split that they come with; splits.published false deals them one anew"
    ) in said


def test_published__false_deals_anew(
    published: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = Splits(folder=tmp_path, published=False, val_fraction=0.0)
    with caplog.at_level("INFO"):
        module = ready(ImageDataModule(Tree(published), crop=CROP, splits=splits))
    frame = module.manifest.frame
    assert frame["split"].value_counts().to_dict() == {"train": 38, "test": 10}
    line = "splits.published is false, so 48 images with a split are dealt one anew"
    assert line in caplog.messages
    assert not [line for line in caplog.messages if "keep the split" in line]
    kept = ImageDataModule(Tree(published), crop=CROP, splits=Splits(val_fraction=0.0))
    assert kept.split_file.name != module.split_file.name


def test_published__a_file_that_trains_on_tests_is_refused(published: Path, tmp_path: Path) -> None:
    module = ready(ImageDataModule(Tree(published), crop=CROP, splits=Splits(folder=tmp_path)))
    older = module.split_file.read_text().replace(",test,", ",train,")
    module.split_file.write_text(older)
    message = (
        r"24 images come with a stricter split than it gives them, such as test/0_real/000.png "
        r"\(test, here train\); delete the file, or set splits.published to false"
    )
    with pytest.raises(DataError, match=message):
        ready(ImageDataModule(Tree(published), crop=CROP, splits=Splits(folder=tmp_path)))


def test_pair_module__unreadable_is_an_error_by_default(image_copy: Path, tmp_path: Path) -> None:
    broken = image_copy / "alpha/0_real/004.png"
    broken.write_text("text")
    module = ready(pair_module(image_copy, tmp_path, num_workers=2))
    with pytest.raises(
        ImageError, match=rf'^{broken}: is text \("text"\), no image; download it again'
    ):
        list(module.predict_dataloader())


def test_pair_module__unreadable_is_left_out_and_listed(image_copy: Path, tmp_path: Path) -> None:
    (image_copy / "alpha/0_real/004.png").write_text("text")
    for _ in range(2):  # written, then read back
        module = ready(pair_module(image_copy, tmp_path, on_unreadable="skip"))
        assert len(module.manifest) == 2 * 24 - 2
        assert len(paths_of(module.predict_dataloader())) == 2 * 24 - 2
        assert "alpha/0_real/004.png" in module.unreadable_file.read_text()


class _Blind(LightningModule):
    """Looks at no image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        return None

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return batch["label"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def blind_trainer() -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=2,
        log_every_n_steps=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


@pytest.mark.parametrize("loop", ["fit", "predict"])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_module__names_all_unreadable_images_at_once(
    image_copy: Path, tmp_path: Path, loop: str, num_workers: int
) -> None:
    for name in ("alpha/0_real/004.png", "alpha/1_fake/001.png", "beta/1_fake/007.png"):
        (image_copy / name).write_text(f"<html>{name}</html>")
    module = pair_module(image_copy, tmp_path, num_workers=num_workers, test_fraction=0.0)
    with pytest.raises(ImageError, match=r"^3 of 36 images cannot be read: alpha/0_real/004.png, "):
        getattr(blind_trainer(), loop)(_Blind(), datamodule=module)
    assert len(module.unreadable_file.read_text().splitlines()) == 4


def test_module__one_error_page_under_the_names_of_both_classes(
    image_copy: Path, tmp_path: Path
) -> None:
    for name in ("alpha/0_real/004.png", "alpha/1_fake/001.png"):
        (image_copy / name).write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"^2 of 36 images cannot be read: .*2 times: is a web pag"):
        pair_module(image_copy, tmp_path).prepare_data()
    shutil.copy(image_copy / "alpha/0_real/005.png", image_copy / "alpha/1_fake/001.png")
    with pytest.raises(ManifestError, match="have the same content; remove one of them"):
        pair_module(image_copy, tmp_path).prepare_data()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_module__says_once_what_was_read_in_spite_of_damage(
    image_copy: Path, tmp_path: Path, caplog, num_workers: int
) -> None:
    for seed, name in enumerate(("alpha/0_real/004.png", "alpha/1_fake/001.png")):
        damaged_jpeg(image_copy / name, seed)
    module = pair_module(image_copy, tmp_path, num_workers=num_workers, test_fraction=0.0)
    for loop in ("fit", "predict"):
        getattr(blind_trainer(), loop)(_Blind(), datamodule=module)
    said = [message for message in caplog.messages if "damaged" in message]
    assert said == [
        f"damaged images that were read all the same: 2, listed in {module.damaged_file}; "
        "on_damaged: refuse makes each an error"
    ]
    assert len(module.damaged_file.read_text().splitlines()) == 3


def test_module__refuses_or_leaves_out_damaged_images(image_copy: Path, tmp_path: Path) -> None:
    damaged_jpeg(image_copy / "alpha/0_real/004.png")
    module = ready(pair_module(image_copy, tmp_path, on_damaged="refuse"))
    with pytest.raises(ImageError, match=r"is damaged \(Corrupt JPEG data"):
        list(module.predict_dataloader())
    other = ready(pair_module(image_copy, tmp_path, on_damaged="refuse", on_unreadable="skip"))
    assert len(other.manifest) == 2 * 24 - 2
    plain = pair_module(image_copy, tmp_path)
    assert len({plain.split_file, module.split_file, other.split_file}) == 3


@pytest.mark.parametrize(
    ("settings", "loader", "message"),
    [
        ({"test_fraction": 1.0}, "train", "no image is in the train split; lower test_fraction"),
        ({"val_fraction": 0.0}, "val", "no image is in the val split; raise val_fraction"),
        ({"test_fraction": 0.0}, "test", "no image is in the test split; raise test_fraction"),
    ],
)
def test_pair_module__empty_split(
    image_root: Path, tmp_path: Path, settings: dict, loader: str, message: str
) -> None:
    module = ready(pair_module(image_root, tmp_path, **settings))
    with pytest.raises(DataError, match=message):
        getattr(module, f"{loader}_dataloader")()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size: must be at least 1, got 0"),
        ({"num_workers": -1}, "num_workers: must be at least 0, got -1"),
        ({"max_unreadable": 5}, r"max_unreadable: must be in \[0, 1\], got 5"),
        ({"test_fraction": 2.0}, "test_fraction: must be in"),
        ({"val_fraction": 1.0}, "val_fraction: must be in"),
    ],
)
def test_pair_module__bad_setting(
    image_root: Path, tmp_path: Path, settings: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        pair_module(image_root, tmp_path, **settings)


def test_image_module__perturbs_what_it_evaluates(image_root: Path, tmp_path: Path) -> None:
    black = ColorJitter(brightness=0.0)
    module = ready(pair_module(image_root, tmp_path, eval_transforms=[black]))
    for loader in (module.val_dataloader(), module.test_dataloader(), module.predict_dataloader()):
        assert all((batch["image"] == 0).all() for batch in loader)
    assert any((batch["image"] > 0).any() for batch in module.train_dataloader())


def test_image_module__view_tells_what_decides_a_feature(image_root: Path, tmp_path: Path) -> None:
    def view(**settings: object) -> object:
        return pair_module(image_root, tmp_path, **settings).preprocess()

    assert view() == view(batch_size=3, num_workers=1, train_transforms=[ColorJitter()])
    assert view() != view(crop=CenterCrop(17))
    assert view(eval_transforms=[JPEG(80)]) != view(eval_transforms=[JPEG((80, 90))])
    # the seed of splits decides no feature, unless something is drawn
    assert view(seed=0) == view(seed=1)
    assert view(seed=0, eval_transforms=[JPEG(80)]) == view(seed=1, eval_transforms=[JPEG(80)])
    for drawn in (
        {"eval_transforms": [JPEG(80, p=0.5)]},
        {"eval_transforms": [JPEG((80, 90))]},
        {"crop": RandomCrop(8)},
    ):
        assert view(seed=0, **drawn) != view(seed=1, **drawn)


def test_image_module__view_tells_of_a_draw_what_decides_it(
    image_root: Path, tmp_path: Path
) -> None:
    module = ready(pair_module(image_root, tmp_path, eval_transforms=[JPEG((30, 90))]))
    frame = module.manifest.frame

    def drawn(number: int = 1, same_for: SameFor = "group", **changed: object) -> ImageDataModule:
        manifest = Manifest(frame.assign(**changed), module.manifest.root)
        return module.of(manifest, draw=Draw(number, same_for))

    before = module.preprocess()
    assert drawn().preprocess() == drawn(split="").preprocess()
    others = [
        before,
        drawn().preprocess(),
        drawn(2).preprocess(),
        drawn(group="g").preprocess(),
        drawn(same_for="image").preprocess(),
    ]
    assert len({fingerprint_of(each) for each in others}) == len(others)
    for_images = [drawn(same_for="image", group=group).preprocess() for group in "ab"]
    assert for_images[0] == for_images[1]
    assert module.preprocess() == before
    fixed = module.of(module.manifest, eval_transforms=[JPEG(80)])
    assert fixed.of(module.manifest, draw=Draw(1)).preprocess() == fixed.preprocess()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_image_module__draws_are_of_their_own_groups(
    image_root: Path, tmp_path: Path, num_workers: int
) -> None:
    """The table of the first view, which has no groups, is not asked; nor is a worker's number."""
    transforms = [JPEG((30, 90)), ColorJitter(brightness=(0.2, 1.8))]
    module = ready(
        pair_module(image_root, tmp_path, eval_transforms=transforms, num_workers=num_workers)
    )
    blank = Manifest(module.manifest.frame.assign(group=""), module.manifest.root)
    views = {"plain": module.of(blank), "draw": module.of(module.manifest, draw=Draw(3))}
    images = blank.frame.drop_duplicates("path", ignore_index=True)
    batches = [FixedBatch(range(start, start + 4), ("draw",)) for start in range(0, 12, 4)]
    loader = module.views_loader(Manifest(images, blank.root), views, batches, pin_memory=False)
    found = torch.cat([batch["images"]["draw"] for batch in loader])
    rows = module.manifest.frame.drop_duplicates("path").index[:12]
    alone = ImageDataset(
        module.manifest, crop=CROP, transforms=transforms, seed=module.seed, draw=Draw(3)
    )
    assert torch.equal(found, torch.stack([alone[int(row)]["image"] for row in rows]))
    loaded = next(iter(views["draw"].predict_dataloader()))["image"]
    assert torch.equal(loaded[0], alone[0]["image"])


def test_image_module__workers_use_one_thread(image_root: Path, tmp_path: Path) -> None:
    class Threads(CenterCrop):
        def __call__(self, image: Tensor) -> Tensor:
            return torch.full((3, 1, 1), torch.get_num_threads(), dtype=torch.uint8)

    module = ready(pair_module(image_root, tmp_path, crop=Threads(1), num_workers=1, batch_size=64))
    assert {int(batch["image"].max()) for batch in module.predict_dataloader()} == {1}


def test_manifest_module__keeps_splits_and_follows_the_content(
    image_root: Path, tmp_path: Path
) -> None:
    manifest = Pairs(image_root, {"alpha": Pair("alpha", "alpha")}).scan()
    splits = ["train"] * 10 + ["test"] * 2 + ["train"] * 10 + ["test"] * 2
    Manifest(manifest.frame.assign(split=splits), image_root).write(tmp_path / "m.csv")
    settings = {"crop": CROP, "splits": Splits(folder=tmp_path / "splits")}
    module = ready(ImageDataModule(ManifestFile(tmp_path / "m.csv", image_root), **settings))
    assert module.manifest.frame["split"].value_counts().to_dict() == {
        "train": 18,
        "test": 4,
        "val": 2,
    }
    assert len(paths_of(module.predict_dataloader())) == 24
    manifest.write(tmp_path / "m.csv")
    again = ready(ImageDataModule(ManifestFile(tmp_path / "m.csv", image_root), **settings))
    assert again.split_file != module.split_file
    # files of the same paths elsewhere may be other ones
    source = ManifestFile(tmp_path / "m.csv", tmp_path / "copy")
    elsewhere = ImageDataModule(source, **settings)
    assert elsewhere.split_file != again.split_file


def test_manifest_module__missing_file(tmp_path: Path) -> None:
    splits = Splits(folder=tmp_path)
    module = ImageDataModule(ManifestFile(tmp_path / "m.csv"), crop=CROP, splits=splits)
    with pytest.raises(ManifestError, match="no such manifest"):
        module.prepare_data()


def test_tree_module__finds_pairs_by_itself(image_root: Path, tmp_path: Path) -> None:
    splits = Splits(test_fraction=1.0, folder=tmp_path)
    module = ready(ImageDataModule(Tree(image_root), crop=CROP, splits=splits))
    assert set(module.manifest.frame["dataset"]) == {"alpha", "beta"}
    assert len(paths_of(module.test_dataloader())) == 48


def test_folder_module__predicts_only(image_root: Path) -> None:
    module = ready(ImageDataModule(Folder(image_root / "alpha"), crop=CROP, batch_size=7))
    batches = list(module.predict_dataloader())
    assert torch.cat([batch["index"] for batch in batches]).tolist() == list(range(24))
    assert {int(label) for batch in batches for label in batch["label"]} == {UNKNOWN}
    with pytest.raises(DataError, match="a folder without labels, which can only be predicted"):
        module.test_dataloader()


def test_folder_module__skips_and_forgets_an_old_report(image_copy: Path, tmp_path: Path) -> None:
    broken = image_copy / "alpha/0_real/004.png"
    content = broken.read_bytes()
    report = tmp_path / "report.csv"

    def count() -> int:
        settings = {"on_unreadable": "skip", "unreadable_file": report}
        source = Folder(image_copy / "alpha")
        return len(ready(ImageDataModule(source, crop=CROP, **settings)).manifest)

    broken.write_text("text")
    assert (count(), report.exists()) == (23, True)
    broken.write_bytes(content)
    assert (count(), report.exists()) == (24, False)


def test_folder_module__two_of_one_working_directory_have_lists_of_their_own(
    image_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (image_copy / "beta/0_real/000.png").write_text("junk")
    folders = [
        ImageDataModule(Folder(image_copy / name), crop=CROP, on_unreadable="skip")
        for name in ("alpha", "beta")
    ]
    for folder in folders:
        folder.prepare_data()
    counts = []
    for folder in folders:
        folder.setup("predict")
        counts.append(len(folder.manifest))
    assert counts == [24, 23]
    (report,) = tmp_path.glob("splits/*-unreadable.csv")
    assert report.name.startswith("beta-")
    assert list(report.parent.iterdir()) == [report]  # what is only predicted is not split


@pytest.fixture
def like(image_root: Path) -> ImageDataModule:
    return ImageDataModule(
        Folder(image_root), crop=Resize(16), eval_transforms=[JPEG(20)], batch_size=5, seed=3
    )  # fmt: skip


@pytest.fixture
def table(image_root: Path) -> Manifest:
    rows = [
        {"path": f"{pair}/{side}/{i:03d}.png", "label": int(side[0]), "dataset": pair,
         "generator": "real", "split": ("train", "val")[i % 2], "group": f"{side}{i}"}
        for pair, side in (("beta", "1_fake"), ("alpha", "0_real"))
        for i in range(6)
    ]  # fmt: skip
    return Manifest.from_rows(rows, image_root)


def test_of__rows_in_their_order_seen_as_the_other_sees_them(table: Manifest, like) -> None:
    data = like.of(table)
    data.setup()
    batches = list(data.predict_dataloader())
    paths = [path for batch in batches for path in batch["path"]]
    assert paths == table.frame["path"].tolist()
    assert len(batches[0]["path"]) == 5
    like.setup()
    seen = {path: image for b in like.predict_dataloader() for path, image in zip(b["path"], b["image"], strict=True)}  # fmt: skip  # noqa: E501
    for batch in batches:
        for path, image in zip(batch["path"], batch["image"], strict=True):
            assert torch.equal(image, seen[path])


def test_of__what_is_given_is_not_taken_over(table: Manifest, like) -> None:
    like.train_transforms, like.train_crop = [HorizontalFlip()], RandomCrop(8)
    same = like.of(table)
    assert (same.train_transforms, same.train_crop, same.seed) == (
        like.train_transforms,
        like.train_crop,
        3,
    )
    assert same.preprocess() == like.preprocess()
    other = like.of(table, train_transforms=[], eval_transforms=[], seed=0)
    assert (other.train_transforms, other.eval_transforms, other.seed) == ([], [], 0)
    assert next(iter(same.train_dataloader()))["image"].shape[-1] == 8
    assert len(like.eval_transforms) == 1


def test_of__splits_are_kept(table: Manifest, like) -> None:
    data = like.of(table)
    trained = [path for batch in data.train_dataloader() for path in batch["path"]]
    assert sorted(trained) == sorted(table.select("train").frame["path"])
    labels = np.concatenate([batch["label"] for batch in data.val_dataloader()])
    assert labels.tolist() == table.select("val").frame["label"].tolist()
    with pytest.raises(DataError, match="no image is in the test split; give a table in which"):
        data.test_dataloader()


def test_module__groups_together(table: Manifest, like) -> None:
    frame = table.frame.assign(group=[str(row % 6) for row in range(12)], split="train")
    data = like.of(Manifest(frame, table.root))
    data.batch_by_group, data.batch_size = True, 2
    numbers = [[Path(path).stem for path in b["path"]] for b in data.train_dataloader()]
    assert sorted(numbers) == [[f"{number:03d}"] * 2 for number in range(6)]


class Place:
    world_size, is_global_zero = 3, False

    def __init__(self, rank: int, device: str = "cpu") -> None:
        self.global_rank = rank
        self.strategy = SimpleNamespace(root_device=torch.device(device))


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("mps", False), ("cuda:1", True)])
def test_loaders__pin_what_goes_to_a_cuda_device(
    image_root: Path, tmp_path: Path, device: str, pinned: bool
) -> None:
    """Whether or not the machine has one."""
    module = pair_module(image_root, tmp_path)
    module.trainer = Place(0, device)  # type: ignore[assignment]
    ready(module)
    for loader in (module.val_dataloader(), module.predict_dataloader()):
        assert loader.pin_memory == pinned


def test_loaders__know_their_place_among_processes(image_root: Path, tmp_path: Path) -> None:
    seen, batches = [], set()
    for rank in range(3):
        module = pair_module(image_root, tmp_path, {"alpha": Pair("alpha", "alpha")}, batch_size=4)
        module.trainer = Place(rank)  # type: ignore[assignment]
        loader = ready(module).predict_dataloader()
        batches.add(len(loader))
        seen += [row for batch in loader for row in batch["index"].tolist() if row >= 0]
    assert sorted(seen) == list(range(24))
    assert len(batches) == 1


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_configs__build_and_find_their_images(
    path: Path, image_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("laion", "imagenet", "biggan"):
        shutil.copytree(image_root / "alpha/0_real", tmp_path / f"data/{name}/0_real")
    for name in ("ldm_100", "ldm_200", "biggan"):
        shutil.copytree(image_root / "alpha/1_fake", tmp_path / f"data/{name}/1_fake")
    pack_data(tmp_path / "data")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    config = parser.parse_object({"data": yaml.safe_load(path.read_text())})
    module = ready(instantiate(parser, config))
    assert set(module.manifest.frame["split"]) == {"train", "val", "test"}


def instantiate(parser: ArgumentParser, config: Namespace) -> ImageDataModule:
    return parser.instantiate(config)["data"]


def test_config__sources_augmentations_and_ranges() -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    text = """
    class_path: dfl.data.ImageDataModule
    init_args:
      source:
        class_path: dfl.data.Pairs
        init_args:
          root: data
          pairs:
            a:
              real: [laion, {path: imagenet, group: "(.+)_", shared_groups: true}]
              fake: {path: ldm, generator: LDM}
      crop: {class_path: dfl.data.MultiCrop, init_args: {size: 8, count: 9}}
      train_transforms:
        - {class_path: dfl.data.GaussianBlur, init_args: {sigma: [0.1, 2.0], p: 0.5}}
        - {class_path: dfl.data.ColorJitter, init_args: {brightness: 0.5, hue: [-0.1, 0.1]}}
        - {class_path: dfl.data.JPEG, init_args: {quality: [30, 95]}}
    """
    config = parser.parse_object({"data": yaml.safe_load(text)})
    module = instantiate(parser, config)
    pair = module.source.pairs["a"]
    assert pair.real == ["laion", ImageSet("imagenet", group="(.+)_", shared_groups=True)]
    assert pair.fake == ImageSet("ldm", generator="LDM")
    assert module.train_transforms[0].sigma == (0.1, 2.0)
    assert module.train_transforms[1].brightness == (0.5, 0.5)
    assert module.train_transforms[2].quality == (30, 95)
    assert module.crop.count == 9


@pytest.mark.parametrize("data", [["--data=ImageDataModule"], []])
def test_options__of_nested_sources_by_short_names(data: list[str], tmp_path: Path) -> None:
    def command(data: ImageDataModule, out: Path) -> ImageDataModule:
        """Do nothing.

        Args:
            data: The images.
            out: A file.
        """
        return data

    args = [*data, "--data.source=Pairs", "--data.source.root=a", f"--out={tmp_path / 'o'}"]
    args += ["--data.source.pairs={p: {real: x, fake: {path: y, generator: g}}}"]
    args += ["--data.crop=Resize", "--data.crop.size=8", "--data.splits.val_fraction=0.5"]
    made = run_command(command, args)
    assert made.source == Pairs(Path("a"), {"p": Pair("x", ImageSet("y", "g"))})
    assert made.splits == Splits(val_fraction=0.5)


def test_options__change_what_a_file_says(tmp_path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    file = CONFIGS / "webdataset.yaml"
    options = ["--data.source.root=x", "--data.source.fields.real=[9]", "--data.splits.folder=y"]
    module = instantiate(parser, parser.parse_args([f"--data={file}", *options]))
    assert module.source.root == Path("x")
    assert (module.source.fields.label, module.source.fields.real) == ("cls", [9])
    assert module.splits.folder == Path("y")
    plain = ["--data=ImageDataModule", "--data.source=WebDataset", "--data.source.root=x"]
    plain += ["--data.source.fields.real=[9]", "--data.crop=Resize", "--data.crop.size=8"]
    module = instantiate(parser, parser.parse_args(plain))
    assert (module.source.fields.label, module.source.fields.real) == ("cls", [9])


@dataclass
class Pngs(Source):
    """A kind of source that the package does not have.

    Args:
        root: A folder.
        label: The class of all of its images.
    """

    root: Path
    label: int = 1

    @property
    def title(self) -> str:
        return "pngs"

    def scan(self) -> Manifest:
        known = {"label": self.label, "dataset": "d", "generator": "g", "split": ""}
        paths = sorted(path.name for path in self.root.glob("*.png"))
        return Manifest.from_rows([{"path": p, "group": p, **known} for p in paths], self.root)


def test_source__of_another_kind_is_one_class(image_root: Path, tmp_path: Path) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(ImageDataModule, "data")
    args = ["--data=ImageDataModule", f"--data.source={__name__}.Pngs"]
    args += [f"--data.source.root={image_root / 'alpha/1_fake'}", "--data.crop=Resize"]
    args += ["--data.crop.size=8", f"--data.splits.folder={tmp_path}"]
    module = ready(instantiate(parser, parser.parse_args(args)))
    assert len(paths_of(module.predict_dataloader())) == 12
    assert module.split_file.name.startswith("pngs-")
    args.append("--data.source.label=0")
    other = instantiate(parser, parser.parse_args(args))
    assert other.split_file != module.split_file


def test_package__manifest_loads_without_lightning() -> None:
    code = (
        "import sys; from dfl.data import Manifest, Pairs, assign_splits; "
        "print([name for name in ('lightning', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_package__exports_exist() -> None:
    import dfl.data

    for name in dfl.data.__all__:
        assert getattr(dfl.data, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = dfl.data.nothing
    assert issubclass(DataError, DflError)
