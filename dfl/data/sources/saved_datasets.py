"""Folders that Hugging Face's ``save_to_disk`` wrote, read without its library."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from dfl.data.sources.words import label_word, split_in, split_role
from dfl.errors import DataError
from dfl.types import FAKE, REAL


def is_saved(folder: Path) -> bool:
    """Whether a folder was written by ``save_to_disk``."""
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def saved_splits(folder: Path) -> dict[str, list[str]]:
    """List the Arrow files of a saved dataset, from the folder, by split, ``""`` for its only one.

    Raises:
        DataError: If the folder is damaged.
    """
    if (folder / "dataset_dict.json").is_file():
        names = _read(folder / "dataset_dict.json", "splits")
        return {
            str(name): [f"{name}/{file}" for file in _files(folder / str(name))] for name in names
        }
    return {"": _files(folder)}


def split_roles(names: Sequence[str], source: str) -> dict[str, str]:
    """Say what the splits of a dataset are here for.

    ``validation`` without a ``test`` beside it is a set's held-out part, so its images are
    ``test``; so are those of a ``test`` that is alone. A ``train`` that is alone is split further,
    for that is what Hugging Face calls data without splits.

    Args:
        names: The splits that are used.
        source: What the error names.

    Returns:
        ``train``, ``val`` or ``test`` by the split's name; empty where it is split further.

    Raises:
        DataError: If a name tells nothing.
    """
    roles = {name: split_in(name) for name in names}
    if len(names) == 1:
        return {
            name: "" if role == "train" else split_role(role, has_test=False)
            for name, role in roles.items()
        }
    unknown = [name for name, role in roles.items() if not role]
    if is_saved(Path(source)) and {label_word(name) for name in names} == {REAL, FAKE}:
        by_label = {label_word(name): name for name in names}
        raise DataError(
            f"{source}: its splits are the classes; take them as the sides of a pair: the source "
            f"Pairs with root: {source}, and real: {by_label[REAL]}, fake: {by_label[FAKE]}"
        )
    if unknown:
        raise DataError(
            f"{source}: its split {unknown[0]!r} is neither train, validation nor test; choose "
            f"from {', '.join(names)} with splits"
        )
    has_test = "test" in roles.values()
    return {name: split_role(role, has_test=has_test) for name, role in roles.items()}


def split_note(roles: Mapping[str, str], title: str) -> list[str]:
    """Say what the splits of a dataset are here for.

    Args:
        roles: What `split_roles` gave.
        title: The dataset's name.
    """
    kept = [
        f"{name} is {role}" + (", as it has no test part" if split_in(name) != role else "")
        for name, role in roles.items()
        if role
    ]
    if kept:
        return [f"{title}: as published, {', '.join(kept)}"]
    return [
        (
            f"{title}: {name} is its only split, so it is taken for no split; use a test split as "
            "well, or set splits.test_fraction to 0 to train on all of it"
        )
        for name in roles
        if name
    ]


def _files(folder: Path) -> list[str]:
    state = folder / "state.json"
    names = []
    for entry in _read(state, "_data_files"):
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not (folder / name).is_file():
            raise DataError(f"{state}: names a file that is missing ({name}); save the set again")
        names.append(name)
    return names


def _read(file: Path, key: str) -> list[object]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found.get("_indices_data_files"):
            raise DataError(f"{file}: the set was saved with indices; save it again")
        return list(found[key])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise DataError(f"{file}: not written by save_to_disk; save the set again") from err
