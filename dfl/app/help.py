"""The help of commands and classes, from their signatures and docstrings alone."""

import ast
import re
import shutil
from collections.abc import Mapping
from textwrap import fill, indent

from dfl.app.signature import (
    Option,
    Signature,
    choices_of,
    class_names,
    definitions_of,
    signature_of,
)

_COLUMN = 26  # where the texts of options begin


def overview(groups: Mapping[str, Mapping[str, str]]) -> str:
    """Write the help of the program.

    Args:
        groups: By title the commands and what each does.
    """
    lines = [
        "usage: dfl COMMAND [--config FILE.yaml] [--option value ...]",
        "",
        "Detect AI-generated images with heads on frozen foundation features.",
    ]
    for title, commands in groups.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:<12}{text}" for name, text in commands.items()]
    return "\n".join([*lines, "", "`dfl COMMAND --help` lists the options of each."])


def command_help(name: str, command: Signature, *, summary: str = "") -> str:
    """Write the help of a command.

    Args:
        name: Its name.
        command: Its signature.
        summary: What it does; the summary of the signature by default.
    """
    required = [option for option in command.options if option.default is None]
    others = [option for option in command.options if option.default is not None]
    given = [f"--{option.name} {option.name.upper()}" for option in required]
    lines = [" ".join(["usage: dfl", name, *given, "[--option value ...]"]), ""]
    lines += [f"{summary or command.summary}\n"]
    lines += [_paragraphs(command.text), ""] if command.text else []
    for title, options in (("Needed", required), ("Options", others)):
        lines += [f"{title}:"] if options or title == "Options" else []
        lines += [_row(option) for option in options]
        lines += [""] if options and title == "Needed" else []
    lines += [
        _entry(
            "-c, --config FILE", "A YAML file with any of these options; what comes later wins."
        ),
        _entry("--print_config", "Print all settings as such a file, and stop."),
    ]
    if example := next((each.name for each in command.options if _candidates(each)), None):
        lines.append(
            "\nA CLASS is a name, or a YAML file with class_path and init_args:\n"
            f"`--{example}.help` lists those of --{example}, `--{example}.help NAME` describes one."
        )
    return "\n".join(lines)


def option_help(command: Signature, path: str, name: str | None) -> str | None:
    """Write the help of an option that takes a class.

    Args:
        command: The command's signature.
        path: The option, such as ``data`` or ``data.crop``.
        name: The class to describe; none to list those that there are.

    Returns:
        The help; None where it is for others to give, such as for a class of Lightning.
    """
    first, *inner = path.split(".")
    option = command.option(first)
    for key in inner:
        known = [signature_of(base) for base in _bases(option)]
        option = next((each.option(key) for each in known if each and each.option(key)), option)
    candidates = _candidates(option) if option is not None else []
    is_foreign = not candidates or ("." in (name or "") and not str(name).startswith("dfl."))
    if option is None or (name is not None and is_foreign):
        return None
    choices = {each.rpartition(".")[2]: each for each in candidates or _bases(option)}
    if not choices:
        return _row(option)
    full = name if name in choices.values() else choices.get(name or "")
    if full is None and len(choices) == 1:
        (full,) = choices.values()
    described = signature_of(full) if full is not None else None
    if described is None:
        known = [signature_of(each) for each in choices.values()]
        rows = [_entry(each.path, each.summary) for each in known if each is not None]
        return "\n".join([f"--{path} takes one of these (`--{path}.help NAME`):", "", *rows])
    if not described.options:
        return None
    is_by_name = not inner and _value(option).startswith("{NAME")
    prefix = f"{path}.NAME." if is_by_name else f"{path}."
    parts = [described.path, _paragraphs(described.summary), _paragraphs(described.text)]
    parts += ["\n".join(_row(each, prefix) for each in described.options)]
    return "\n\n".join(part for part in parts if part)


def _bases(option: Option | None) -> list[str]:
    return [] if option is None else class_names(option.annotation, option.module)


def _row(option: Option, prefix: str = "") -> str:
    name, text = f"--{prefix}{option.name}", option.text.replace("``", "`")
    if option.default is None:
        return _entry(f"{name} {_value(option)}", f"{text} (needed)" if prefix else text)
    if option.is_flag and not prefix:
        return _entry(name if option.default == "False" else f"--no_{option.name}", text)
    plain = re.fullmatch(r"""(?:Path\()?["']?([\w .?,:/-]+)["']?\)?""", option.default)
    is_told = plain is not None and plain[1] != "None" and not plain[1].isupper()
    known = f" (default: {plain[1]})" if plain is not None and is_told else ""
    return _entry(f"{name} {_value(option)}", f"{text}{known}".strip())


def _entry(name: str, text: str) -> str:
    body = fill(text, width=_width() - _COLUMN)
    body = indent(body, " " * _COLUMN)
    first = f"  {name}"
    if len(first) > _width():  # as of many choices
        first = fill(first.replace(",", ", "), width=_width(), subsequent_indent=" " * 6)
    return f"{first:<{_COLUMN}}{body[_COLUMN:]}" if len(first) < _COLUMN - 1 else f"{first}\n{body}"


def _value(option: Option) -> str:
    return _kind(option.annotation, option.module)


def _kind(kind: ast.expr, module: str) -> str:
    """Say in a word what an option takes."""
    match kind:
        case ast.BinOp(left=left, right=right):
            sides = [_kind(side, module) for side in (left, right)]
            return "|".join(dict.fromkeys(side for side in sides if side))
        case ast.Constant(value=None):
            return ""
        case ast.Subscript(value=ast.Name(id="Literal")):
            return "{" + ",".join(map(str, choices_of(kind))) + "}"
        case ast.Subscript(value=ast.Name(id="dict"), slice=ast.Tuple(elts=[_, inner])):
            return f"{{NAME: {_kind(inner, module)}, ...}}"
        case ast.Subscript(value=ast.Name(id="list"), slice=inner):
            return f"[{_kind(inner, module)}, ...]"
        case ast.Name(id="Path"):
            return "PATH"
        case ast.Name(id="str"):
            return "TEXT"
        case ast.Name(id="int" | "float"):
            return "NUMBER"
        case ast.Name(id="bool"):
            return "{true,false}"
    return "CLASS"


def _candidates(option: Option) -> list[str]:
    return [each for base in _bases(option) for each in definitions_of(base)]


def _paragraphs(text: str) -> str:
    """Fill paragraphs; what has indented lines is an example and stays as it is."""
    parts = [part.strip("\n") for part in text.split("\n\n")]
    return "\n\n".join(
        part if "\n " in part else fill(part.replace("``", "`"), width=_width()) for part in parts
    )


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 100)
