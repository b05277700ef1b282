import pytest
import torch

from dfl.demo.generators import train
from dfl.demo.generators.train import Recipe, TrainingRun
from dfl.demo.generators.vae import VaeImitator

pytest.importorskip("skimage", reason="needs the extra [demo]")


class TinyVae(VaeImitator):
    def __init__(self):
        super().__init__(width=8, code_channels=7)


RECIPE = Recipe(TinyVae, num_updates=4, lr=1e-3)


def test_training_run__resumed_equals_uninterrupted(tmp_path):
    whole = TrainingRun(RECIPE, seed=0)
    for _ in range(4):
        whole.update()
    half = TrainingRun(RECIPE, seed=0)
    for _ in range(2):
        half.update()
    half.save(tmp_path / "half.pt")

    resumed = TrainingRun(RECIPE, seed=1)
    resumed.load(tmp_path / "half.pt")
    for _ in range(2):
        resumed.update()

    assert [p.name for p in tmp_path.iterdir()] == ["half.pt"]
    for name, value in whole.averaged().state_dict().items():
        assert torch.equal(value, resumed.averaged().state_dict()[name]), name


def test_training_run__average_lags_behind():
    run = TrainingRun(RECIPE, seed=0)
    start = {name: p.detach().clone() for name, p in run.imitator.named_parameters()}
    run.update()

    averaged = dict(run.averaged().named_parameters())
    for name, now in run.imitator.named_parameters():
        assert torch.allclose(averaged[name], 0.1 * start[name] + 0.9 * now, atol=1e-6)


def test_main__writes_checkpoint_and_sheets_and_continues(tmp_path, monkeypatch):
    monkeypatch.setitem(train.RECIPES, "vae", RECIPE)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    written = []
    monkeypatch.setattr(train, "write_sheets", lambda i, folder, seed: written.append(folder))
    options = ["--family", "vae", "--out", str(tmp_path)]

    train.main([*options, "--num-updates", "1"])
    train.main([*options, "--num-updates", "2"])

    state = torch.load(tmp_path / "vae.pt", weights_only=True)
    assert state["update_index"] == 2
    assert written == [tmp_path / "vae"] * 2
