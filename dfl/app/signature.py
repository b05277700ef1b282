"""What a command or a class takes, read from its source: nothing heavy is imported for a help."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Final, cast

from docstring_parser import parse as parse_docstring

# The packages whose public classes and functions a config names.
_ROOMS = (
    *("dfl.data", "dfl.backbones", "dfl.features", "dfl.heads", "dfl.heads.estimators"),
    "dfl.demo",
)

_SECTION: Final = re.compile(r"^(?:Args|Attributes|Returns|Yields|Raises):$", re.MULTILINE)

Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Option:
    """One argument.

    Attributes:
        name: Its name.
        annotation: Its type as it is written, names of other types put in.
        default: Its default as it is written; None where it has to be given.
        text: What the docstring says of it.
        module: Where it is written, so that the names in its type can be looked up.
    """

    name: str
    annotation: ast.expr
    default: str | None
    text: str
    module: str

    @property
    def is_flag(self) -> bool:
        """Whether it is true or false."""
        return ast.unparse(self.annotation) == "bool"


@dataclass(frozen=True)
class Signature:
    """What can be called, and how.

    Attributes:
        path: Its public name, such as ``dfl.data.Resize``.
        summary: The first line of its docstring.
        text: The paragraphs after that.
        options: Its arguments, in order.
        is_open: Whether it takes others too.
    """

    path: str
    summary: str
    text: str
    options: tuple[Option, ...]
    is_open: bool = False

    def option(self, name: str) -> "Option | None":
        """Find an argument by name."""
        return next((option for option in self.options if option.name == name), None)


@cache
def signature_of(path: str) -> Signature | None:
    """Read the signature of a function or a class.

    Args:
        path: Where it can be imported from, such as ``dfl.commands.extract.extract``.

    Returns:
        Its signature; None if it is not found, or is no function and no class.
    """
    found = _find(*path.rpartition(".")[::2])
    module, node = found or ("", None)
    if not isinstance(node, ast.FunctionDef | ast.ClassDef):
        return None
    options, is_open = _options(module, node)
    words = _SECTION.split(ast.get_docstring(node) or "")[0]
    summary, _, text = words.strip().partition("\n\n")
    return Signature(path, " ".join(summary.split()), text, options, is_open)


def class_names(kind: ast.expr, module: str) -> list[str]:
    """List the classes in a type; plain types are left out.

    Args:
        kind: The type.
        module: Where it is written.

    Returns:
        For each its module and its name.
    """
    names = [node.id for node in ast.walk(kind) if isinstance(node, ast.Name)]
    found = [(name, _find(module, name)) for name in names]
    return [
        f"{place[0]}.{name}"
        for name, place in found
        if place is not None and isinstance(place[1], ast.ClassDef)
    ]


def choices_of(kind: ast.expr) -> list[object]:
    """List the values that a ``Literal`` allows."""
    return [each.value for each in ast.walk(kind) if isinstance(each, ast.Constant)]


def exported(name: str) -> str | None:
    """Find what a config names.

    Args:
        name: A full name such as ``dfl.data.Resize``, or that of a class of dfl alone.

    Returns:
        The full name; None if there is no such thing.
    """
    if "." in name:
        return name if signature_of(name) is not None else None
    for room in _ROOMS:
        if isinstance(dict(_exports(room)).get(name, ("", None))[1], ast.ClassDef):
            return f"{room}.{name}"
    return None


@cache
def definitions_of(base: str) -> tuple[str, ...]:
    """List what a config can name where a class is wanted.

    Args:
        base: Where the class is defined.

    Returns:
        The public names of its concrete subclasses, itself included, and of the functions that
        make one.
    """
    wanted = _find(*base.rpartition(".")[::2])
    found: list[str] = []
    if wanted is None:
        return ()
    for room in _ROOMS:
        for name, place in _exports(room):
            module, node = place
            if isinstance(node, ast.ClassDef):
                is_one = not _is_abstract(node) and wanted in _with_bases(module, node)
            else:
                made = ast.unparse(node.returns) if node.returns else "None"
                is_one = made.isidentifier() and _is_kind(module, made, wanted)
            if is_one:
                found.append(f"{room}.{name}")
    return tuple(found)


def _is_kind(module: str, name: str, wanted: tuple[str, ast.stmt]) -> bool:
    place = _find(module, name)
    if place is None or not isinstance(place[1], ast.ClassDef):
        return False
    return wanted in _with_bases(place[0], place[1])


def _options(module: str, node: Definition) -> tuple[tuple[Option, ...], bool]:
    """Read the arguments of a function, of a constructor, or of a dataclass."""
    texts = _texts(node)
    if isinstance(node, ast.FunctionDef):
        return _arguments(module, node, texts)
    own = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    if constructor := [each for each in own if each.name == "__init__"]:
        options, is_open = _arguments(module, constructor[0], texts | _texts(constructor[0]))
        return options[1:], is_open  # without self
    options, is_open = (), False
    for place in _bases(module, node):
        options, is_open = _options(*place)
        if options:
            break
    if any("dataclass" in ast.unparse(each) for each in node.decorator_list):
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
        options += tuple(_field(module, each, texts) for each in fields)
    return options, is_open


def _field(module: str, node: ast.AnnAssign, texts: dict[str, str]) -> Option:
    name = ast.unparse(node.target)
    default = None if node.value is None else ast.unparse(node.value)
    return Option(name, _spelt_out(module, node.annotation), default, texts.get(name, ""), module)


def _arguments(
    module: str, node: ast.FunctionDef, texts: dict[str, str]
) -> tuple[tuple[Option, ...], bool]:
    given = node.args
    missing = [None] * (len(given.args) - len(given.defaults))
    pairs = [*zip(given.args, [*missing, *given.defaults], strict=True)]
    pairs += [*zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    options = tuple(
        Option(
            argument.arg,
            _spelt_out(module, argument.annotation or ast.Name("object")),
            None if default is None else ast.unparse(default),
            texts.get(argument.arg, ""),
            module,
        )
        for argument, default in pairs
    )
    return options, given.kwarg is not None


def _texts(node: Definition) -> dict[str, str]:
    docstring = parse_docstring(ast.get_docstring(node) or "")
    return {each.arg_name: " ".join((each.description or "").split()) for each in docstring.params}


def _spelt_out(module: str, annotation: ast.expr) -> ast.expr:
    """Put the types in that the module's own names stand for, as in ``Engine``."""

    class Speller(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.AST:
            place = _find(module, node.id)
            if place is not None and isinstance(place[1], ast.Assign | ast.AnnAssign):
                value = place[1].value
                if isinstance(value, ast.Subscript | ast.BinOp):
                    return _spelt_out(place[0], value)
            return node

        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            node = cast(ast.Subscript, self.generic_visit(node))
            inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            match ast.unparse(node.value):
                case "Optional":
                    inner = [*inner, ast.Constant(None)]
                case "Union":
                    pass
                case _:
                    return node
            return reduce(lambda left, right: ast.BinOp(left, ast.BitOr(), right), inner)

    copied = ast.parse(ast.unparse(annotation), mode="eval").body
    if isinstance(copied, ast.Constant) and isinstance(copied.value, str):
        copied = ast.parse(copied.value, mode="eval").body
    spelt = Speller().visit(copied)
    assert isinstance(spelt, ast.expr)
    return spelt


# Where things are defined


def _find(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """Follow a name to where it is defined; None where it is built in, or not there."""
    for _ in range(8):  # imports that lead in a circle
        node = _names(module).get(name)
        if node is None:
            return None
        if not isinstance(node, ast.ImportFrom):
            return module, node
        original = next(each.name for each in node.names if (each.asname or each.name) == name)
        module, name = _imported(module, node), original
    return None


@cache
def _names(module: str) -> dict[str, ast.stmt]:
    """What a module defines or imports by name, at its top and where types alone are meant."""
    file = _file(module)
    if file is None:
        return {}
    names: dict[str, ast.stmt] = {}
    for node in _top(ast.parse(file.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: node for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            names[node.targets[0].id] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node
    return names


def _top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If):
            yield from _top(node.body)
        else:
            yield node


def _file(module: str) -> Path | None:
    """Find a module's file without importing the packages above it; a stub comes first."""
    top, *rest = module.split(".")
    spec = find_spec(top)
    if spec is None or not spec.submodule_search_locations:
        return None
    base = Path(spec.submodule_search_locations[0], *rest)
    candidates = (base / "__init__.pyi", base / "__init__.py", base.with_suffix(".py"))
    return next((file for file in candidates if file.is_file()), None)


def _imported(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    file = _file(module)
    is_package = file is not None and file.stem == "__init__"
    parts = module.split(".")
    parts = parts[: len(parts) - node.level + is_package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _exports(room: str) -> Iterator[tuple[str, tuple[str, Definition]]]:
    for name in _names(room):
        place = _find(room, name)
        if (
            place is not None
            and isinstance(place[1], ast.FunctionDef | ast.ClassDef)
            and not name.startswith("_")
        ):
            yield name, (place[0], place[1])


def _bases(module: str, node: ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef]]:
    for base in node.bases:
        place = _find(module, ast.unparse(base)) if isinstance(base, ast.Name) else None
        if place is not None and isinstance(place[1], ast.ClassDef):
            yield place[0], place[1]


def _with_bases(module: str, node: ast.ClassDef) -> list[tuple[str, ast.stmt]]:
    above = [each for place in _bases(module, node) for each in _with_bases(*place)]
    return [(module, node), *above]


def _is_abstract(node: ast.ClassDef) -> bool:
    if any("ABC" in ast.unparse(base) or "Protocol" in ast.unparse(base) for base in node.bases):
        return True
    own = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    return any("abstract" in ast.unparse(mark) for each in own for mark in each.decorator_list)
