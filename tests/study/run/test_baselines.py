"""The networks of a study: what their keys depend on, and what becomes of those that fail."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from lightning.pytorch.cli import ReduceLROnPlateau
from safetensors.torch import save_file

import dfl.study.run.baselines
from dfl.backbones import TimmBackbone
from dfl.data import Augmentation, GaussianBlur, ImageDataModule, Pair, Pairs, Resize, Splits
from dfl.errors import ConfigError, DataError
from dfl.heads.tasks.finetune import FineTuneTask
from dfl.heads.tasks.tune import TuneTask
from dfl.study.analysis.chosen import chosen_table
from dfl.study.design.grid import ConditionUse, condition_plan
from dfl.study.design.training_sets import held_out_rows, training_sets
from dfl.study.run.baselines import Baselines, FineTuning
from dfl.study.run.cells import CellStore
from dfl.study.run.finetuning import Baseline, training_settings
from dfl.study.run.study import Study
from tests.processes import CONTEXT, serve

SCHEDULERS = {
    "none": None,
    "step": partial(torch.optim.lr_scheduler.StepLR, step_size=2),
    "later step": partial(torch.optim.lr_scheduler.StepLR, step_size=3),
    "steeper step": partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5),
    "cosine": partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=2),
    "plateau": partial(ReduceLROnPlateau, monitor="val/loss"),
    "other plateau": partial(ReduceLROnPlateau, monitor="train/loss"),
    "by number": partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=4),
}
OPTIMIZERS = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "slow adam": partial(torch.optim.Adam, lr=1e-5),
    "tensor": partial(torch.optim.Adam, lr=torch.tensor(0.5)),
}


def tiny(**arguments: Any) -> FineTuneTask:
    settings = {"model": "test_resnet", "pretrained": False, "input_size": 32}
    return FineTuneTask(**settings | {"optimizer": torch.optim.Adam} | arguments)


@pytest.fixture(scope="module")
def data(image_root: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageDataModule:
    made = ImageDataModule(
        Pairs(image_root, {name: Pair(real=name, fake=name) for name in ("alpha", "beta")}),
        crop=Resize(32),
        batch_size=8,
        splits=Splits(val_fraction=0.25, folder=tmp_path_factory.mktemp("splits")),
    )
    made.prepare_data()
    made.setup()
    return made


def study(
    data: ImageDataModule,
    folder: Path,
    conditions: Sequence[str] = ("none",),
    use: Sequence[ConditionUse] = ("both",),
) -> Study:
    frame = data.manifest.frame
    sets = training_sets(frame, ["each"])
    plan = condition_plan(list(conditions), list(use))
    return Study({0: frame}, dict.fromkeys(conditions), plan, sets, {}, {}, folder / "cells")


def baselines(
    data: ImageDataModule,
    of: Study,
    *,
    conditions: Mapping[str, list[Augmentation]] | None = None,
    max_epochs: int = 1,
    devices: Sequence[int] = (0,),
    accelerator: str = "cpu",
    **tasks: Baseline,
) -> Baselines:
    return Baselines(
        tasks or {"net": tiny()},
        FineTuning(max_epochs=max_epochs, train_sets=["alpha"]),
        of,
        data,
        conditions or {"none": []},
        out=of.folder.parent,
        accelerator=accelerator,
        devices=devices,
        precision="32-true",
    )


def test_training_settings__tell_optimizers_and_schedulers_apart() -> None:
    def make() -> list[object]:
        tasks = [tiny(lr_scheduler=scheduler) for scheduler in SCHEDULERS.values()]
        tasks += [tiny(optimizer=optimizer) for optimizer in OPTIMIZERS.values()][1:]
        return [training_settings(task) for task in tasks]

    made = make()
    assert made == make()
    assert len({str(one) for one in made}) == len(made)
    assert "0x" not in str(made)  # an address would be another in the next process
    assert made[0]["lr_scheduler"] is None
    assert made[1]["lr_scheduler"]["class"] == "torch.optim.lr_scheduler.StepLR"
    assert made[1]["lr_scheduler"]["settings"]["step_size"] == 2
    assert made[0]["optimizer"]["settings"]["betas"] == [0.9, 0.999]


def test_training_settings__hold_the_content_of_weights(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(b"one")
    task = tiny(weights=file, pretrained=True)
    first = training_settings(task)
    file.write_bytes(b"two")
    assert training_settings(task) != first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": None}, "a baseline needs its optimizer, for example torch.optim.Adam"),
        ({"optimizer": partial(torch.optim.Adam, lr=-1)}, "Invalid learning rate: -1"),
        ({"lr_scheduler": torch.optim.lr_scheduler.StepLR}, "lr_scheduler: .*step_size"),
    ],
)
def test_training_settings__mistakes(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        training_settings(tiny(**arguments))


def test_keys__another_scheduler_is_another_cell(data: ImageDataModule, tmp_path: Path) -> None:
    tasks = {str(n): tiny(lr_scheduler=s) for n, s in enumerate(SCHEDULERS.values())}
    given = study(data, tmp_path)
    keys = baselines(data, given, **tasks).keys
    assert len(set(keys.values())) == len(SCHEDULERS)
    assert keys == baselines(data, given, **tasks).keys


def test_keys__a_further_condition_shares_the_training(
    data: ImageDataModule, tmp_path: Path
) -> None:
    networks = baselines(data, study(data, tmp_path))
    (cell,) = networks.cells
    wider = baselines(
        data,
        study(data, tmp_path, ["none", "blur"], ["both", "test"]),
        conditions={"none": [], "blur": [GaussianBlur(2.0)]},
    )
    assert networks.keys[cell] != wider.keys[cell]
    assert networks.checkpoint(cell) == wider.checkpoint(cell)
    longer = baselines(data, study(data, tmp_path), max_epochs=2)
    assert longer.checkpoint(cell) != networks.checkpoint(cell)


def test_cells__training_is_on_images_as_they_come(data: ImageDataModule, tmp_path: Path) -> None:
    given = study(data, tmp_path, ["blur", "none"])
    with pytest.raises(ConfigError, match=r"the first one, blur, changes the images.*before it"):
        baselines(data, given, conditions={"blur": [GaussianBlur(2.0)], "none": []})


@pytest.mark.parametrize(
    ("err", "cause"),
    [
        (KeyError("no\nkey"), r"KeyError: 'no\nkey'"),
        (torch.OutOfMemoryError("too\nlarge"), "OutOfMemoryError: too large"),
        (DataError("x.png is damaged"), "x.png is damaged"),
        (
            None,
            "2 of {held} scores under the condition none are not finite; the training diverged, ",
        ),
    ],
)
def test_run__a_network_that_fails_stops_no_other(
    data: ImageDataModule, tmp_path: Path, monkeypatch, err: Exception | None, cause: str
) -> None:
    given = study(data, tmp_path)
    held = len(held_out_rows(given.frames[0]))
    bad, good = tiny(), tiny(input_size=64)

    def trained(task, *args, **kwargs):
        if task is not good and err is not None:
            raise err
        return Path("network.ckpt")

    def scored(task, *args, **kwargs):
        return np.zeros(held) if task is good else np.r_[np.zeros(held - 2), np.nan, np.inf]

    monkeypatch.setattr(dfl.study.run.baselines, "fine_tune", trained)
    monkeypatch.setattr(dfl.study.run.baselines, "score_network", scored)
    monkeypatch.setattr(dfl.study.run.baselines, "values_in", lambda _: 0)
    networks = baselines(data, given, bad=bad, good=good)
    assert len(networks.missing()) == 2
    outcomes = networks.run()
    assert str(outcomes[0].cause).startswith(cause.format(held=held))
    assert outcomes[1].cause is None
    assert CellStore(given.folder).finished() == {networks.keys[outcomes[1].cell]}
    assert networks.missing() == [outcomes[0].cell]


def without_memory(parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Be the optimizer of a network that is too large, though not of one of one weight."""
    optimizer = torch.optim.Adam(parameters, lr=0.5)
    if len(optimizer.param_groups[0]["params"]) > 1:
        raise torch.OutOfMemoryError("too\nlarge")
    return optimizer


class QuickProcesses(ProcessPoolExecutor):
    """Processes that need not import torch, in place of those of loky, and are no children."""

    def __init__(self, count: int, **_: object) -> None:
        serve()
        super().__init__(count, mp_context=CONTEXT)

    def shutdown(self, wait: bool = True, *, kill_workers: bool = False, **_: bool) -> None:
        super().shutdown(wait)


@pytest.mark.slow
def test_run__on_two_devices_at_once_as_one_after_the_other(
    data: ImageDataModule, tmp_path: Path, monkeypatch
) -> None:
    """Scores and weights are the same, and who has no memory stops no other."""
    monkeypatch.setattr("dfl.study.run.workers.ProcessPoolExecutor", QuickProcesses)
    tasks = {
        "large": tiny(optimizer=without_memory),
        "net": tiny(optimizer=lambda p: torch.optim.Adam(p)),
    }
    scores: list[bytes] = []
    weights: list[dict[str, torch.Tensor]] = []
    for folder, devices in ((tmp_path / "one", [0]), (tmp_path / "two", [0, 1])):
        networks = baselines(data, study(data, folder), devices=devices, **tasks)
        torch.manual_seed(len(devices))  # of the process, which has no part in it
        outcomes = networks.run()
        assert [outcome.cell for outcome in outcomes] == networks.cells
        assert [outcome.cause for outcome in outcomes] == ["OutOfMemoryError: too large", None]
        assert networks.missing() == networks.cells[:1]
        scores.append(
            (folder / "cells" / networks.keys[networks.cells[1]] / "scores.npz").read_bytes()
        )
        checkpoint = networks.checkpoint(networks.cells[1])
        weights.append(torch.load(checkpoint, weights_only=True)["state_dict"])
    assert scores[0] == scores[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.gpu
def test_run__two_networks_on_a_gpu_at_once_as_one_after_the_other(
    data: ImageDataModule, tmp_path: Path
) -> None:
    """In processes of loky; both take the same GPU here."""
    tasks = {"one": tiny(), "two": tiny(optimizer=partial(torch.optim.Adam, lr=1e-4))}
    scores: list[list[np.ndarray]] = []
    for folder, devices in ((tmp_path / "one", [0]), (tmp_path / "two", [0, 0])):
        given = study(data, folder)
        networks = baselines(data, given, devices=devices, accelerator="gpu", **tasks)
        assert [outcome.cause for outcome in networks.run()] == [None, None]
        cells = CellStore(given.folder)
        scores.append([cells.read(key)[0]["none"] for key in networks.keys.values()])
    for one, other in zip(*scores, strict=True):  # cuDNN adds up in no order
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3)


def test_run__a_damaged_cell_is_made_again(
    data: ImageDataModule, tmp_path: Path, monkeypatch, caplog
) -> None:
    given = study(data, tmp_path)
    scores = np.arange(len(held_out_rows(given.frames[0])), dtype=np.float64)
    monkeypatch.setattr(dfl.study.run.baselines, "fine_tune", lambda *_, **__: Path("n.ckpt"))
    monkeypatch.setattr(dfl.study.run.baselines, "score_network", lambda *_, **__: scores)
    monkeypatch.setattr(dfl.study.run.baselines, "values_in", lambda _: 0)
    networks = baselines(data, given)
    networks.run()
    assert (networks.run(), networks.missing()) == ([], [])
    (key,) = CellStore(given.folder).finished()
    (given.folder / key / "scores.npz").write_bytes(b"")
    (outcome,) = networks.run()
    assert outcome.cause is None
    assert caplog.text.count("it is made anew") == 1
    np.testing.assert_array_equal(CellStore(given.folder).read(key)[0]["none"], scores)


def test_run__a_backbone_that_is_tuned_a_little(data: ImageDataModule, tmp_path: Path) -> None:
    torch.manual_seed(0)
    file = tmp_path / "vit.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), file)
    vit = TimmBackbone("test_vit", ["block1.cls"], weights=str(file), input_size=32)
    tuned = TuneTask({"vit": vit}, optimizer=torch.optim.Adam)
    other = TuneTask({"vit": vit}, alignment=0.1, optimizer=torch.optim.Adam)
    given = study(data, tmp_path)
    networks = baselines(data, given, tuned=tuned, other=other, net=tiny())
    assert [cell.head for cell in networks.cells] == ["layernorm", "layernorm", "end to end"]
    assert len(set(networks.keys.values())) == 3
    networks = baselines(data, given, tuned=tuned)
    assert [outcome.cause for outcome in networks.run()] == [None]
    assert networks.run() == []
    (cell,) = networks.cells
    table = chosen_table([cell], networks.keys, given)
    count = 4 * 2 * 64 + 64 + 1  # two norms in each of two blocks, and the linear layer
    assert table["chosen"].tolist() == [f"{count} values learnt"]
    by_group = data.of(data.manifest)
    by_group.batch_by_group = True
    assert baselines(by_group, given, tuned=tuned).keys != networks.keys
