"""The chosen detector as a thing to take home: a fitted head, or a fine-tuned network."""

from pathlib import Path
from typing import Final

from dfl.errors import StudyError
from dfl.folders import making_folder
from dfl.heads.storage.head_folder import HEAD, HEAD_MODEL, SCORES, copy_head, save_head
from dfl.study.design.grid import Cell
from dfl.study.run.baselines import Baselines
from dfl.study.run.cells import CellStore
from dfl.study.run.fitting import fit_head
from dfl.study.run.study import Study

BEST: Final = "best"
"""The folder of the chosen detector, in the study's."""

_NETWORK: Final = "network.ckpt"


def take_home(cell: Cell, key: str, study: Study, baselines: Baselines, *, out: Path) -> Path:
    """Store the detector of a cell with its threshold and calibration, for `dfl detect`.

    Args:
        cell: The cell.
        key: Its key.
        study: What it was made from.
        baselines: The fine-tuned networks, one of which it may be.
        out: The study's folder; what an earlier run chose is replaced.

    Returns:
        What `dfl detect` takes: the folder of a head, or a checkpoint.

    Raises:
        DflError: If it cannot be stored, or something else lies where it goes.
        OSError: If the disk does not take it.
    """
    folder = out / BEST
    if cell.head in study.heads:
        (folder / _NETWORK).unlink(missing_ok=True)
        if (kept := CellStore(study.folder).head(key)) is not None:
            copy_head(kept, folder, overwrite=True)
        else:
            head, counts = fit_head(cell, study)
            save_head(head, folder, counts=counts, overwrite=True)
        return folder
    from dfl.heads.storage.checkpoint import copy_with_operating_point  # it imports torch

    scores, _ = CellStore(study.folder).read(key)
    threshold, calibration = study.operating_point(cell, scores)
    with making_folder(folder) as partial:
        _check_replaceable(folder)
        checkpoint = baselines.checkpoint(cell)
        copy_with_operating_point(checkpoint, partial / _NETWORK, threshold, calibration)
    return folder / _NETWORK


def _check_replaceable(folder: Path) -> None:
    own = {_NETWORK, HEAD.document, HEAD_MODEL, SCORES}
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if foreign := sorted(there - own):
        raise StudyError(f"{folder / foreign[0]} is no part of a detector; move it away")
