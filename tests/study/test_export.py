"""The chosen detector, as `dfl detect` finds it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dfl.errors import DflError
from dfl.heads.storage.checkpoint import CHECKPOINT_KEY, HeadDescription, read_checkpoint
from dfl.heads.storage.head_folder import load_head
from dfl.study.design.grid import Cell
from dfl.study.design.training_sets import held_out_rows
from dfl.study.export import take_home
from dfl.study.run.cells import CellStore
from dfl.study.run.study import Study
from tests.study.study_examples import cell, example

NETWORK = Cell("fine-tuned", ("net",), "none", "end to end", "alpha", "none", 0)
KEY = "ab" * 16


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return example(tmp_path)


def network(study: Study, folder: Path) -> Path:
    """Keep the scores of a network, and write a checkpoint of it."""
    frame = study.frames[0]
    label = frame["label"].to_numpy()[held_out_rows(frame)]
    noise = np.random.default_rng(0).normal(size=len(label))
    CellStore(study.folder).keep(KEY, NETWORK, {"none": 3 * label + noise + 7, "blur": noise}, {})
    about = HeadDescription("dfl.heads.FineTuneTask", {"model": "m"}, ()).dump()
    torch.save({"state_dict": {"w": torch.ones(2)}, CHECKPOINT_KEY: about}, folder / "best.ckpt")
    return folder / "best.ckpt"


def taken(study: Study, chosen: Cell, checkpoint: Path) -> Path:
    networks = SimpleNamespace(checkpoint=lambda cell: {NETWORK: checkpoint}[cell])
    return take_home(chosen, KEY, study, networks, out=checkpoint.parent / "out")


def test_take_home__network_keeps_the_operating_point_of_validation(
    study: Study, tmp_path: Path
) -> None:
    checkpoint = network(study, tmp_path)
    found = taken(study, NETWORK, checkpoint)
    assert found == tmp_path / "out" / "best" / "network.ckpt"
    about = HeadDescription.load(read_checkpoint(found))
    scores, _ = CellStore(study.folder).read(KEY)
    assert (about.threshold, about.calibration) == study.operating_point(NETWORK, scores)
    assert about.threshold > 7
    assert HeadDescription.load(read_checkpoint(checkpoint)).threshold == 0
    assert torch.equal(read_checkpoint(found)["state_dict"]["w"], torch.ones(2))


def test_take_home__what_was_chosen_before_is_replaced_and_nothing_else(
    study: Study, tmp_path: Path
) -> None:
    checkpoint = network(study, tmp_path)
    best = tmp_path / "out" / "best"
    for _ in range(2):
        assert taken(study, NETWORK, checkpoint) == best / "network.ckpt"
        assert [path.name for path in best.iterdir()] == ["network.ckpt"]
        assert taken(study, cell("lda"), checkpoint) == best
        assert load_head(best).spec[0].name == "one.a"
        assert {path.name for path in best.iterdir()} == {"head.json", "head.skops"}
    (best / "notes.txt").write_text("mine")
    for chosen in (NETWORK, cell("lda")):
        with pytest.raises(DflError, match=r"best/notes\.txt is .*; move it away"):
            taken(study, chosen, checkpoint)
    assert (best / "notes.txt").read_text() == "mine"
    assert load_head(best)
