"""What a command line gives, looked at before anything heavy is imported."""

import ast
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Final

import yaml

from dfl.app.renamed import renamed
from dfl.app.signature import Signature, class_names, definitions_of, exported, signature_of

__all__ = ["check_given", "with_flags"]

# What commands take beside the arguments of their functions; the last three are Lightning's.
COMMON: Final = ("config", "print_config", "weights_only", "verbose", "return_predictions")

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
    """Refuse names that a command does not know, all of them at once.

    Values are left to the parser, which imports what they are to become.

    Args:
        command: The command.
        args: Its command line.

    Raises:
        ArgumentError: If an option or a setting does not exist, is called otherwise by now, or has
            to be given and is not.
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
        problems += _unknown(command, given, "")
        missing = [each.name for each in command.options if each.default is None]
        missing = [name for name in missing if name not in given]
        if missing and not problems and "print_config" not in given:
            problems.append(f"missing: {', '.join(f'--{name}' for name in missing)}")
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
        if file.suffix in (".yaml", ".yml") and file.is_file():
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
        if key == "class_path" and tree.get(key) != value:
            tree.pop("init_args", None)  # those of another class; the parser keeps what fits
        tree[key] = value


def _unknown(known: Signature, given: Tree, path: str) -> Iterator[str]:
    """Name what is given to a command or a class that it does not take."""
    names = [option.name for option in known.options] + ([] if path else [*COMMON])
    of = f" of {_short(known.path)}" if path else ""
    for name, value in given.items():
        option = known.option(name)
        if option is not None:
            yield from _unknown_in(option.annotation, option.module, value, f"{path}{name}")
        elif name not in names and not known.is_open:
            near = get_close_matches(name, names, n=1)
            nearest = f", nearest: --{path}{near[0]}" if near else ""
            yield f"--{path}{name}: no such option{of}{nearest}"


def _unknown_in(kind: ast.expr, module: str, value: object, path: str) -> Iterator[str]:
    """Name what is unknown in a value of a type that is written in a module."""
    match kind:
        case ast.BinOp(left=left, right=right):
            sides = [side for side in (left, right) if class_names(side, module)]
            if len(sides) == 1:
                yield from _unknown_in(sides[0], module, value, path)
            elif all(isinstance(side, ast.Name) for side in sides):
                yield from _unknown_of(class_names(kind, module), value, path)
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[_, inner])):
            for name, item in value.items() if isinstance(value, dict) else []:
                yield from _unknown_in(inner, module, item, f"{path}.{name}")
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            for item in value if isinstance(value, list) else []:
                yield from _unknown_in(inner, module, item, path)
        case ast.Name():
            yield from _unknown_of(class_names(kind, module), value, path)
        case _:  # such as what makes an optimizer
            return


def _unknown_of(bases: list[str], value: object, path: str) -> Iterator[str]:
    """Name what is unknown where an object of a class is wanted, or of one made from it."""
    candidates = [each for base in bases for each in definitions_of(base)]
    arguments = value
    if isinstance(value, str) or (isinstance(value, dict) and "class_path" in value):
        named = value if isinstance(value, str) else str(value["class_path"])
        is_ours = named.startswith("dfl.") or named.isidentifier()
        full = exported(named) if is_ours else None
        if full is None and candidates and is_ours:
            by_name = {_short(each): each for each in candidates}
            near = [by_name[name] for name in get_close_matches(_short(named), by_name, n=1)]
            nearest = f"nearest: {near[0]}" if near else f"--{path}.help lists what there is"
            yield f"--{path}: no class {named}, {nearest}"
        arguments = value.get("init_args") if isinstance(value, dict) else None
    else:
        full = next(iter([*candidates, *bases]), None) if len(candidates) < 2 else None
    known = signature_of(full) if full is not None else None
    if known is not None and isinstance(arguments, dict) and "dict_kwargs" not in arguments:
        yield from _unknown(known, arguments, f"{path}.")


def _short(path: str) -> str:
    return path.rpartition(".")[2]
