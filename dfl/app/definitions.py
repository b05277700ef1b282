"""Where names are defined, found in the source: nothing is imported to be looked at."""

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Definition(NamedTuple):
    """What a name stands for.

    Attributes:
        module: The module that says so.
        node: The class, the function or the assignment.
    """

    module: str
    node: ast.stmt


def find(module: str, name: str) -> Definition | None:
    """Follow a name to where it is defined.

    Args:
        module: Where the name is used.
        name: The name.

    Returns:
        Its definition; None where it is built in, or not there.
    """
    node = _names(module).get(name)
    if not isinstance(node, ast.ImportFrom):
        return None if node is None else Definition(module, node)
    original = next(each.name for each in node.names if (each.asname or each.name) == name)
    source = _imported(module, node)
    return find(source, original) if (source, original) != (module, name) else None


@cache
def exports(package: str) -> dict[str, Definition]:
    """List the classes and functions that a package gives to its users, by name."""
    found = {name: find(package, name) for name in _names(package) if not name.startswith("_")}
    return {
        name: definition
        for name, definition in found.items()
        if definition is not None and isinstance(definition.node, ast.FunctionDef | ast.ClassDef)
    }


def lineage(definition: Definition | None) -> list[Definition]:
    """List a class and the classes that it is derived from, as far as they are found."""
    if definition is None or not isinstance(definition.node, ast.ClassDef):
        return []
    bases = [base.id for base in definition.node.bases if isinstance(base, ast.Name)]
    above = [each for base in bases for each in lineage(find(definition.module, base))]
    return [definition, *above]


def is_abstract(node: ast.ClassDef) -> bool:
    """Tell whether a class is only to be derived from."""
    methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    marks = [ast.unparse(mark) for each in methods for mark in each.decorator_list]
    bases = [ast.unparse(base) for base in node.bases]
    return any("abstract" in mark for mark in marks) or not {"ABC", "Protocol"}.isdisjoint(bases)


@cache
def _names(module: str) -> dict[str, ast.stmt]:
    """What a module defines or imports by name, at its top and where types alone are meant."""
    file = _file(module)
    names: dict[str, ast.stmt] = {}
    for node in _top(ast.parse(file.read_text(encoding="utf-8")).body) if file else ():
        match node:
            case ast.ImportFrom():
                names |= {alias.asname or alias.name: node for alias in node.names}
            case ast.FunctionDef() | ast.ClassDef():
                names[node.name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names[name] = node
    return names


def _top(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield from _top(node.body) if isinstance(node, ast.If) else (node,)


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
    """Name the module that an import is from, which may be relative."""
    if not node.level:
        return node.module or ""
    file = _file(module)
    is_package = file is not None and file.stem == "__init__"
    parts = module.split(".")
    return ".".join([*parts[: len(parts) - node.level + is_package], *filter(None, [node.module])])
