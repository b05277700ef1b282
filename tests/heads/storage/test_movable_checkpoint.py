"""Checkpoints that are whole, and the best of the run that a fit went on with."""

from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from dfl.heads.storage.checkpoint import CHECKPOINT_KEY
from dfl.heads.storage.movable_checkpoint import (
    MovableCheckpoint,
    WholeCheckpointIO,
    earlier_best,
    save_whole,
)


def test_whole_checkpoint_io__keeps_the_old_one_where_the_new_one_fails(
    tmp_path: Path, monkeypatch
) -> None:
    file = tmp_path / "x" / "last.ckpt"
    io = WholeCheckpointIO()
    io.save_checkpoint({"a": 1}, file)
    save = torch.save

    def cut(checkpoint: object, path: Path) -> None:
        save(checkpoint, path)
        path.write_bytes(path.read_bytes()[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(OSError, match="No space"):
        io.save_checkpoint({"a": 2}, file)
    assert torch.load(file, weights_only=True) == {"a": 1}
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_save_whole__not_where_somebody_chose_another_way() -> None:
    class Own(TorchCheckpointIO):
        pass

    for strategy in ("auto", DDPStrategy(process_group_backend="gloo")):
        trainer = pl.Trainer(accelerator="cpu", devices=1, strategy=strategy, logger=False)
        save_whole(trainer)
        assert type(trainer.strategy.checkpoint_io) is WholeCheckpointIO
    trainer = pl.Trainer(accelerator="cpu", devices=1, plugins=[Own()], logger=False)
    save_whole(trainer)
    assert type(trainer.strategy.checkpoint_io) is Own


def test_movable_checkpoint__knows_its_best_in_another_place(tmp_path: Path) -> None:
    before = ModelCheckpoint("/old", monitor="val/loss")
    before.best_model_path, before.best_model_score = "/old/best.ckpt", torch.tensor(0.5)
    before.best_k_models = {"/old/best.ckpt": torch.tensor(0.5)}
    after = MovableCheckpoint(tmp_path, monitor="val/loss")
    after.load_state_dict(before.state_dict())
    best = str(tmp_path / "best.ckpt")
    assert (after.best_model_path, list(after.best_k_models)) == (best, [best])
    assert float(after.best_model_score) == 0.5


@pytest.mark.parametrize(
    ("mode", "now", "is_better"),
    [("min", 0.8, True), ("min", 0.6, False), ("max", 0.8, False), ("max", 0.6, True)],
)
def test_earlier_best__of_the_run_before(
    tmp_path: Path, mode: str, now: float, is_better: bool
) -> None:
    best = tmp_path / "best.ckpt"
    best.touch()
    state = {"monitor": "val/loss", "best_model_path": str(best)}
    state["best_model_score"] = torch.tensor(0.7)
    states = {"a": {"wait_count": 1}, "b": {"monitor": None}, "c": state}
    torch.save({"callbacks": states, CHECKPOINT_KEY: {}}, tmp_path / "last.ckpt")
    callback = SimpleNamespace(monitor="val/loss", mode=mode, best_model_score=torch.tensor(now))
    found = earlier_best(tmp_path / "last.ckpt", callback)
    assert (found is not None) == is_better
    if found is not None:
        assert found == (best, pytest.approx(0.7))
    best.unlink()
    assert earlier_best(tmp_path / "last.ckpt", callback) is None
