"""What a command or a class takes, read from its source: nothing heavy is imported for a help."""

import ast
import re
from dataclasses import dataclass
from functools import cache, reduce
from typing import Final

from docstring_parser import parse as parse_docstring

from dfl.app.definitions import Definition, exports, find, is_abstract, lineage

# The packages whose public classes and functions a config names.
_ROOMS = (
    *("dfl.data", "dfl.backbones", "dfl.features", "dfl.heads", "dfl.heads.estimators"),
    *("dfl.reconstruct", "dfl.demo"),
)

_SECTION: Final = re.compile(r"^(?:Args|Attributes|Returns|Yields|Raises):$", re.MULTILINE)


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
    definition = find(*path.rpartition(".")[::2])
    if definition is None or not isinstance(definition.node, ast.FunctionDef | ast.ClassDef):
        return None
    words = _SECTION.split(ast.get_docstring(definition.node) or "")[0]
    summary, _, text = words.strip().partition("\n\n")
    return Signature(path, " ".join(summary.split()), text, *_options(definition))


def class_names(kind: ast.expr, module: str) -> list[str]:
    """List the classes in a type; plain types are left out.

    Args:
        kind: The type.
        module: Where it is written.

    Returns:
        Full names, such as ``dfl.data.images.crops.Crop``.
    """
    names = [node.id for node in ast.walk(kind) if isinstance(node, ast.Name)]
    return [f"{each[0].module}.{name}" for name in names if (each := lineage(find(module, name)))]


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
    rooms = (room for room in _ROOMS if lineage(exports(room).get(name)))
    return next((f"{room}.{name}" for room in rooms), None)


@cache
def definitions_of(base: str) -> tuple[str, ...]:
    """List what a config can name where a class is wanted.

    Args:
        base: Where the class is defined.

    Returns:
        The public names of its concrete subclasses, itself included, and of the functions that
        make one.
    """
    wanted = find(*base.rpartition(".")[::2])
    return tuple(
        f"{room}.{name}"
        for room in _ROOMS
        for name, definition in exports(room).items()
        if wanted in lineage(_made_by(definition))
    )


def _made_by(definition: Definition) -> Definition | None:
    """Find the class of what a function or a class makes; None for a class that makes nothing."""
    match definition.node:
        case ast.FunctionDef(returns=ast.Name(id=name)):
            return find(definition.module, name)
        case ast.ClassDef() if not is_abstract(definition.node):
            return definition
    return None


def _options(definition: Definition) -> tuple[tuple[Option, ...], bool]:
    """Read the arguments of a function, of a constructor, or of a dataclass."""
    node, module = definition.node, definition.module
    if isinstance(node, ast.FunctionDef):
        return _arguments(node, module, _texts(node))
    if not isinstance(node, ast.ClassDef):
        return (), False
    texts = _texts(node)
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            options, is_open = _arguments(each, module, texts | _texts(each))
            return options[1:], is_open  # without self
    above = [_options(each) for each in lineage(definition)[1:]]
    options, is_open = next((each for each in above if each[0]), ((), False))
    if any("dataclass" in ast.unparse(mark) for mark in node.decorator_list):
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
        options += tuple(
            _option(ast.unparse(each.target), each.annotation, each.value, module, texts)
            for each in fields
        )
    return options, is_open


def _arguments(
    node: ast.FunctionDef, module: str, texts: dict[str, str]
) -> tuple[tuple[Option, ...], bool]:
    given = node.args
    missing = [None] * (len(given.args) - len(given.defaults))
    pairs = [*zip(given.args, [*missing, *given.defaults], strict=True)]
    pairs += [*zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    options = [
        _option(each.arg, each.annotation or ast.Name("object"), default, module, texts)
        for each, default in pairs
    ]
    return tuple(options), given.kwarg is not None


def _option(
    name: str, kind: ast.expr, default: ast.expr | None, module: str, texts: dict[str, str]
) -> Option:
    spelt = _spelt_out(kind, module)
    shown = None if default is None else ast.unparse(default)
    return Option(name, spelt, shown, texts.get(name, ""), module)


def _texts(node: ast.FunctionDef | ast.ClassDef) -> dict[str, str]:
    docstring = parse_docstring(ast.get_docstring(node) or "")
    return {each.arg_name: " ".join((each.description or "").split()) for each in docstring.params}


def _spelt_out(kind: ast.expr, module: str) -> ast.expr:
    """Write a type with what its names stand for, such as ``Engine``, and its alternatives as |."""
    match kind:
        case ast.Constant(value=str(text)):
            return _spelt_out(ast.parse(text, mode="eval").body, module)
        case ast.Name(id=name):
            found = find(module, name)
            node = found.node if found is not None else None
            value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
            is_type = found is not None and isinstance(value, ast.Subscript | ast.BinOp)
            return _spelt_out(value, found.module) if found and value and is_type else kind
        case ast.BinOp(left=left, right=right):
            return ast.BinOp(_spelt_out(left, module), kind.op, _spelt_out(right, module))
        case ast.Subscript(value=ast.Name(id="Literal")):
            named = [each for each in ast.walk(kind.slice) if isinstance(each, ast.Name)]
            more = [choices_of(_spelt_out(each, module)) for each in named]
            choices = [*choices_of(kind), *(each for found in more for each in found)]
            return ast.parse(f"Literal{choices!r}", mode="eval").body
        case ast.Subscript(value=ast.Name(id="Optional" | "Union" as outer)):
            sides = kind.slice.elts if isinstance(kind.slice, ast.Tuple) else [kind.slice]
            sides = [_spelt_out(side, module) for side in sides]
            sides += [ast.Constant(None)] if outer == "Optional" else []
            return reduce(lambda left, right: ast.BinOp(left, ast.BitOr(), right), sides)
        case ast.Subscript(value=ast.Name(id="list" | "dict")):
            sides = kind.slice.elts if isinstance(kind.slice, ast.Tuple) else [kind.slice]
            inner = [_spelt_out(side, module) for side in sides]
            return ast.Subscript(kind.value, ast.Tuple(inner) if len(inner) > 1 else inner[0])
    return kind
