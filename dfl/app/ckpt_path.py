"""What ``--ckpt_path`` names: a file, or Lightning's words for a checkpoint of the newest run."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from dfl.errors import CheckpointError

WORDS: Final = ("last", "best")
OF_FIT: Final = ("hpc", "registry")
"""Words that Lightning itself looks up, when it fits."""


def find_checkpoint(asked: str, trainer: Mapping[str, object]) -> Path | None:
    """Find the checkpoint that a user names.

    Lightning knows ``last`` and ``best`` as long as a process lasts, or in one folder; here they
    are those of the newest run beside which this one will be.

    Args:
        asked: A file, or a word.
        trainer: The settings of the trainer, which say where runs are.

    Returns:
        The file; None where a word is asked for and no run has kept any checkpoint.

    Raises:
        CheckpointError: If there is no such file, or the newest run has none for the word.
    """
    kept = sorted(_kept(trainer), key=lambda file: file.stat().st_mtime, reverse=True)
    if asked not in WORDS:
        if not Path(asked).exists():
            near = _near(Path(asked), kept)
            raise CheckpointError(f"{asked}: no such checkpoint{near}")
        return Path(asked)
    if not kept:
        return None
    folder = kept[0].parent
    found = [file for file in kept if file.parent == folder and file.stem.startswith(asked)]
    if not found:
        there = ", ".join(file.name for file in kept if file.parent == folder)
        raise CheckpointError(
            f"{asked}: the newest run, {folder}, keeps {there}; give --ckpt_path one of these files"
        )
    return found[0]


def runs_of(trainer: Mapping[str, object]) -> list[Path]:
    """List the folders that hold the runs of a trainer, and those of its checkpoints.

    Args:
        trainer: Its settings.
    """
    root = Path(str(trainer.get("default_root_dir") or "."))
    found = []
    for logger in _several(trainer.get("logger")):
        known = _arguments(logger)
        name = known.get("name") or known.get("project") or "lightning_logs"
        found.append(Path(str(known.get("save_dir") or root)) / str(name))
        if known.get("project"):  # W&B's runs are under the project, whatever they are called
            found.append(Path(str(known.get("save_dir") or root)) / str(known["project"]))
    callbacks = [_arguments(each) for each in _several(trainer.get("callbacks"))]
    found += [Path(str(each["dirpath"])) for each in callbacks if each.get("dirpath")]
    return list(dict.fromkeys(found or [root / "lightning_logs"]))


def _kept(trainer: Mapping[str, object]) -> Iterator[Path]:
    for folder in runs_of(trainer):
        yield from folder.glob("*.ckpt")
        yield from folder.glob("*/checkpoints/*.ckpt")


def _near(path: Path, kept: list[Path]) -> str:
    """Name the checkpoints that may have been meant."""
    beside = [*path.parent.glob("*.ckpt")] if path.parent.is_dir() else []
    by_name = {str(file): file for file in (*beside, *kept)}
    near = get_close_matches(str(path), by_name, n=3, cutoff=0.5) or [*by_name][:3]
    return f"; there are {', '.join(near)}" if near else ""


def _several(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _arguments(value: object) -> Mapping[str, object]:
    arguments = value.get("init_args") if isinstance(value, Mapping) else None
    return arguments if isinstance(arguments, Mapping) else {}
