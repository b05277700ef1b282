"""What a command line gives, looked at before anything heavy is imported."""

import ast
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Final

import yaml

from dfl.app.renamed import renamed
from dfl.app.signature import (
    Signature,
    choices_of,
    class_names,
    definitions_of,
    exported,
    signature_of,
)

# What commands take beside the arguments of their functions; the last three are Lightning's.
COMMON: Final = ("config", "print_config", "weights_only", "verbose", "return_predictions")

MISSING: Final = "missing "

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


def check_given(command: Signature, args: Sequence[str]) -> None:
    """Refuse what a command cannot take, all of it at once.

    What is not sure is left to the parser, which imports what the settings are to become.

    Args:
        command: The command.
        args: Its command line.

    Raises:
        ArgumentError: If an option or a setting does not exist, is called otherwise by now, is of
            another type, or has to be given and is not.
    """
    given: Tree = {}
    problems: list[str] = []
    for name, value in _settings(args):
        problems += renamed(value, name)
        if name:
            _put(given, name.split("."), value)
        elif isinstance(value, dict):
            for key, item in value.items():
                _put(given, str(key).split("."), item)
        elif not Path(str(value)).is_file():
            problems.append(f"--config {value}: no such file")
    if not problems:
        found = list(_in_arguments(command, given, "", [*COMMON]))
        missing = [each.removeprefix(MISSING) for each in found if each.startswith(MISSING)]
        problems = [each for each in found if not each.startswith(MISSING)]
        if missing and not problems and "print_config" not in given:
            problems.append(f"missing: {', '.join(missing)}")
    if problems:
        raise ArgumentError(None, "; ".join(dict.fromkeys(problems)))


def _settings(args: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Read options and config files; what is in a config of the whole command has no name."""
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
        inner: Tree = child if isinstance(child, dict) else {}
        if isinstance(child, str):
            inner["class_path"] = child
        tree[key] = inner
        _put(inner, rest, value)
    elif isinstance(value, dict) and isinstance(tree.get(key), dict):
        for name, item in value.items():
            _put(tree, [key, name], item)
    else:
        known = tree.get(key)
        if key == "class_path" and known != value:
            tree.pop("init_args", None)  # those of another class; the parser keeps what fits
        if isinstance(value, str) and isinstance(known, dict) and "class_path" not in known:
            value = {"class_path": value, "init_args": known}  # options before their class
        tree[key] = value


def _in_arguments(
    known: Signature, given: Tree, path: str, more: Sequence[str] = ()
) -> Iterator[str]:
    """Name what is wrong in the arguments of a command or a class."""
    names = [*(option.name for option in known.options), *more]
    of = f" of {_short(known.path)}" if path else ""
    for name, value in given.items():
        option = known.option(name)
        if option is not None:
            yield from _in_value(option.annotation, option.module, value, f"--{path}{name}")
        elif name not in names and not known.is_open:
            near = get_close_matches(name, names, n=1)
            nearest = f", nearest: --{path}{near[0]}" if near else ""
            yield f"--{path}{name}: no such option{of}{nearest}"
    for option in known.options:
        if option.default is None and option.name not in given:
            yield f"{MISSING}--{path}{option.name}"


def _in_value(kind: ast.expr, module: str, value: object, path: str) -> Iterator[str]:
    """Name what is wrong in a value of a type that is written in a module."""
    sides = [side for side in _alternatives(kind) if not _is_none(side)]
    classes = [name for side in sides for name in class_names(side, module)]
    if value is None or any(_plain_name(side) and _is_plain(side, value) for side in sides):
        return
    if all(_plain_name(side) for side in sides):
        expected = " or ".join(_plain_name(side) or "" for side in sides)
        yield f"{path}: expected {expected}, got {value}"
    elif len(sides) > 1 and not all(isinstance(side, ast.Name) for side in sides):
        return  # which of several was meant is the parser's to find out
    elif isinstance(sides[0], ast.Subscript) and isinstance(sides[0].value, ast.Name):
        inner = sides[0].slice
        if sides[0].value.id == "list" and isinstance(value, list):
            for item in value:
                yield from _in_value(inner, module, item, path)
        elif sides[0].value.id == "dict" and isinstance(value, dict):
            kinds = inner.elts if isinstance(inner, ast.Tuple) else []
            for name, item in value.items() if kinds else []:
                yield from _in_value(kinds[1], module, item, f"{path}.{name}")
    elif isinstance(sides[0], ast.Name):
        yield from _in_object(classes, value, path)


def _in_object(bases: list[str], value: object, path: str) -> Iterator[str]:
    """Name what is wrong where an object of a class is wanted, or of one made from it."""
    candidates = [each for base in bases for each in definitions_of(base)]
    arguments: object = value
    if isinstance(value, str) or (isinstance(value, dict) and "class_path" in value):
        named = value if isinstance(value, str) else str(value["class_path"])
        is_ours = named.startswith("dfl.") or named.isidentifier()
        full = exported(named) if is_ours else None
        if full is None and candidates and is_ours:
            by_name = {_short(each): each for each in candidates}
            near = [by_name[name] for name in get_close_matches(_short(named), by_name, n=1)]
            nearest = f"nearest: {near[0]}" if near else f"{path}.help lists what there is"
            yield f"{path}: no class {named}, {nearest}"
        arguments = {} if isinstance(value, str) else value.get("init_args", {})
    else:
        full = next(iter([*candidates, *bases]), None) if len(candidates) < 2 else None
    known = signature_of(full) if full is not None else None
    if known is not None and isinstance(arguments, dict) and "dict_kwargs" not in arguments:
        yield from _in_arguments(known, arguments, f"{path.removeprefix('--')}.")


def _alternatives(kind: ast.expr) -> list[ast.expr]:
    if isinstance(kind, ast.BinOp):
        return [*_alternatives(kind.left), *_alternatives(kind.right)]
    return [kind]


def _is_none(kind: ast.expr) -> bool:
    return isinstance(kind, ast.Constant) and kind.value is None


def _plain_name(kind: ast.expr) -> str | None:
    """Name a type whose values are checked here; None for any other."""
    if isinstance(kind, ast.Subscript) and ast.unparse(kind.value) == "Literal":
        return ", ".join(repr(choice) for choice in choices_of(kind))
    name = ast.unparse(kind)
    return name if name in ("bool", "int", "float", "str", "Path") else None


def _is_plain(kind: ast.expr, value: object) -> bool:
    """Tell whether a value can be of a type; the parser is stricter."""
    match ast.unparse(kind):
        case "int" | "float":
            with suppress(ValueError):
                return float(str(value)) is not None
            return False
        case "bool":
            return str(value).lower() in ("true", "false", "yes", "no", "on", "off", "0", "1")
        case "str" | "Path":
            return not isinstance(value, dict | list)
    return str(value) in [str(choice) for choice in choices_of(kind)]


def _short(path: str) -> str:
    return path.rpartition(".")[2]
