"""What a command line gives, read without importing what it is to become."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import yaml

from dfl.app.signature import Signature, exported, signature_of

Tree = dict[str, object]


def with_flags(command: Signature, args: Sequence[str]) -> list[str]:
    """Give flags their value: ``--overwrite`` is ``--overwrite=true``, ``--no_plain`` the contrary.

    Args:
        command: The command.
        args: Its command line.
    """
    flags = {option.name for option in command.options if option.is_flag}
    given = []
    for arg, following in pairwise([*args, "--"]):
        name = arg.removeprefix("--")
        if name in flags and following.startswith("--"):
            arg = f"{arg}=true"
        elif name.removeprefix("no_") in flags - {name}:
            arg = f"--{name.removeprefix('no_')}=false"
        given.append(arg)
    return given


def with_lists(args: Sequence[str]) -> list[str]:
    """Put the values behind an option into one list, as a shell leaves them of a pattern.

    ``--images a.jpg b.jpg`` is ``--images=["a.jpg", "b.jpg"]``; of config files each has an option
    of its own.

    Args:
        args: The command line.
    """
    given: list[str] = []
    place = 0
    while place < len(args):
        arg, values = args[place], []
        while place + 1 < len(args) and not args[place + 1].startswith("--"):
            place += 1
            values.append(args[place])
        place += 1
        if not arg.startswith("--") or "=" in arg or len(values) < 2:
            given += [arg, *values]
        elif arg == "--config":
            given += [f"--config={value}" for value in values]
        else:
            given.append(f"{arg}={json.dumps(values, ensure_ascii=False)}")
    return given


def settings(args: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Read the options of a command line, and the config files that it names.

    Args:
        args: The command line.

    Yields:
        Name and value; a config of the whole command has no name.
    """
    for arg, following in pairwise([*args, "--"]):
        if arg == "-c":
            arg = "--config"
        if not arg.startswith("--"):
            continue
        name, equals, value = arg[2:].partition("=")
        name = name.removesuffix("+")
        if not equals:
            value = "" if following.startswith("--") else following
        yield ("" if name == "config" else name), _read(value, Path())


def tree_of(given: Sequence[tuple[str, object]]) -> Tree:
    """Put settings together; what comes later wins.

    Args:
        given: Settings, as `settings` reads them.

    Returns:
        Values by name; those of a class under ``class_path`` and ``init_args``.
    """
    tree: Tree = {}
    for name, value in given:
        pairs = value.items() if not name and isinstance(value, dict) else [(name, value)]
        for key, item in pairs:
            _put(tree, str(key).split("."), item)
    tree.pop("", None)  # a config that is no mapping
    return tree


def _read(value: object, folder: Path, depth: int = 0) -> object:
    """Read a value as the parser does, with the YAML files that it names."""
    if isinstance(value, dict):
        return {key: _read(item, folder, depth) for key, item in value.items()}
    if isinstance(value, list):
        return [_read(item, folder, depth) for item in value]
    if not isinstance(value, str) or depth > 5:
        return value
    file = folder / value
    try:
        if file.suffix in (".yaml", ".yml", ".json") and file.is_file():
            read = yaml.safe_load(file.read_text(encoding="utf-8"))
            return _read(read, file.parent, depth + 1)
        return value if depth else yaml.safe_load(value)
    except (OSError, ValueError, yaml.YAMLError):
        return value  # the parser says what is wrong with it


def _put(tree: Tree, keys: Sequence[str], value: object) -> None:
    """Put a value into a tree in which a class is class_path and init_args."""
    key, *rest = [each for each in keys if each != "init_args"] or [""]
    if "class_path" in tree and key != "class_path":
        inside = tree.setdefault("init_args", {})
        assert isinstance(inside, dict)
        tree = inside
    if rest:
        child = tree.get(key)
        inner = child if isinstance(child, dict) else {}
        inner |= {"class_path": child} if isinstance(child, str) else {}
        tree[key] = inner
        _put(inner, rest, value)
    elif isinstance(value, dict) and isinstance(tree.get(key), dict):
        for name, item in value.items():
            _put(tree, [key, name], item)
    elif key == "class_path":
        tree |= _with_class(value, tree.get("init_args", {}))
    else:
        known = tree.get(key)
        if isinstance(value, str) and isinstance(known, dict):
            value = _with_class(value, known.get("init_args", known))
        tree[key] = value


def _with_class(named: object, arguments: object) -> Tree:
    """Name a class; of the arguments of another one, those stay that it takes, too."""
    known = signature_of(exported(str(named)) or "")
    names = [option.name for option in known.options] if known is not None else []
    given = arguments if isinstance(arguments, Mapping) else {}
    return {"class_path": named, "init_args": {n: v for n, v in given.items() if n in names}}
