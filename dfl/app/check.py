"""What is wrong in a command line, found before anything heavy is imported."""

import ast
from argparse import ArgumentError
from collections.abc import Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import Final

import yaml

from dfl.app.given import Tree, settings, tree_of
from dfl.app.renamed import renamed
from dfl.app.signature import (
    Signature,
    choices_of,
    class_names,
    definitions_of,
    exported,
    signature_of,
)
from dfl.errors import one_line

# What commands take beside the arguments of their functions; the last three are Lightning's.
COMMON: Final = ("config", "print_config", "weights_only", "verbose", "return_predictions")

MISSING: Final = "missing "


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
    given = list(settings(args))
    stray = [*takewhile(lambda arg: not arg.startswith("-"), args)]
    option = command.options[0].name if command.options else ""
    if stray:
        values = " ".join(stray)
        raise ArgumentError(None, f"{values}: say what each is, as in --{option} {stray[0]}")
    problems = [problem for name, value in given for problem in renamed(value, name)]
    configs = [value for name, value in given if not name and not isinstance(value, dict)]
    problems += [f"--config{_fault(value)}" for value in configs]
    if not problems:
        tree = tree_of(given)
        found = list(_in_arguments(command, tree, "", [*COMMON]))
        missing = [each.removeprefix(MISSING) for each in found if each.startswith(MISSING)]
        problems = [each for each in found if not each.startswith(MISSING)]
        if missing and not problems and "print_config" not in tree:
            problems.append(f"missing: {', '.join(missing)}")
    if problems:
        raise ArgumentError(None, "; ".join(dict.fromkeys(problems)))


def _fault(config: object) -> str:
    """Say why a config gives no options: its file as it was named, or what is in it."""
    if not isinstance(config, str):
        return f": holds no options by name, but {config}"
    if not Path(config).is_file():
        return f" {config}: no such file"
    try:
        yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as err:
        return f" {config}: not readable as YAML ({one_line(err)})"
    return f" {config}: holds no options by name"


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
            near = [*_deeper(name, known), *get_close_matches(name, names, n=1)]
            nearest = f", nearest: --{path}{near[0]}" if near else ""
            yield f"--{path}{name}: no such option{of}{nearest}"
    for option in known.options:
        if option.default is None and option.name not in given:
            yield f"{MISSING}--{path}{option.name}"


def _deeper(name: str, known: Signature) -> Iterator[str]:
    """Find a name that a class takes which is an argument, as in --data.num_workers."""
    for option in known.options:
        bases = class_names(option.annotation, option.module)
        for each in (*bases, *(full for base in bases for full in definitions_of(base))):
            inner = signature_of(each)
            if inner is not None and inner.option(name) is not None:
                is_by_name = ast.unparse(option.annotation).startswith("dict")
                yield f"{option.name}.{'NAME.' * is_by_name}{name}"
                break


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
