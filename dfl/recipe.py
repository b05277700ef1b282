"""Plain descriptions of configured objects: what is stored can be built again without pickle.

A class takes part by scikit-learn's convention: its constructor keeps every argument, unchanged,
under the argument's own name. A description then is ``{"class_path": ..., "init_args": {...}}``, as
in a config file.
"""

import inspect
import json
from collections.abc import Mapping
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Final

from dfl.errors import ConfigError

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
Recipe = dict[str, Plain]

RANDOM_WEIGHTS: Final = (
    "its backbone had random weights (pretrained: false), which no other run has"
)
"""What an error says of what stands on such a backbone."""

_KEYS: Final = {"class_path", "init_args"}
_FOREIGN: Final = "is not a class of dfl; only those are built from a stored file"


def describe(value: object) -> Plain:
    """Describe a configured object as plain data.

    Args:
        value: A plain value, a path, a list, a mapping, or an object that keeps its constructor's
            arguments.

    Returns:
        The value itself where it is plain; otherwise its class path and the descriptions of its
        arguments.

    Raises:
        ConfigError: If an object does not keep one of its constructor's arguments.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    cls = type(value)
    arguments: dict[str, Plain] = {}
    for name in inspect.signature(cls).parameters:
        if not hasattr(value, name):
            raise ConfigError(
                f"{cls.__qualname__} does not keep its argument {name!r}, so it cannot be stored; "
                f"set self.{name} in its constructor"
            )
        arguments[name] = describe(getattr(value, name))
    return {"class_path": public_name(cls), "init_args": arguments}


def public_name(cls: type) -> str:
    """Name a class as its users import it, whichever module defines it.

    What is stored on disk carries these names, so a class that moves to another file keeps the
    fingerprints of what it made.

    Args:
        cls: A class.

    Returns:
        The outermost package that exports the class, and its name, such as ``dfl.data.Resize``; the
        module that defines it where no package exports it.
    """
    module, name = cls.__module__, cls.__qualname__
    parts = module.split(".")
    for end in range(1, len(parts)):
        package = ".".join(parts[:end])
        if getattr(import_module(package), name, None) is cls:
            return f"{package}.{name}"
    return f"{module}.{name}"


def has_random_weights(recipe: Plain) -> bool:
    """Tell whether something described has weights that no other run has: ``pretrained: false``.

    Args:
        recipe: A description; those in it count too.
    """
    if isinstance(recipe, list):
        return any(map(has_random_weights, recipe))
    if not isinstance(recipe, dict):
        return False
    return recipe.get("pretrained") is False or any(map(has_random_weights, recipe.values()))


def fingerprint_of(value: Plain) -> str:
    """Identify plain data by a hash; the order of a mapping's keys does not count.

    Args:
        value: Plain data.

    Returns:
        A hexadecimal SHA-256.
    """
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def build(recipe: Plain) -> object:
    """Build what `describe` described.

    Args:
        recipe: A description. Only classes of ``dfl`` are built; another one must be imported by
            its user.

    Returns:
        The object, its arguments built first.

    Raises:
        ConfigError: If a class is not one of ``dfl`` or no longer exists.
    """
    if isinstance(recipe, list):
        return [build(item) for item in recipe]
    if not isinstance(recipe, dict):
        return recipe
    arguments = {key: build(item) for key, item in recipe.items() if key not in _KEYS}
    if "class_path" not in recipe:
        return arguments
    nested = build(recipe.get("init_args") or {})
    if not isinstance(nested, dict):
        raise ConfigError(f"init_args must be a mapping, got {nested!r}")
    return _find_class(str(recipe["class_path"]))(**nested)


def _find_class(class_path: str) -> type:
    module, _, name = class_path.rpartition(".")
    # a stored file names what is imported and called, so it may only name what is ours, which what
    # our modules import is not
    if module.partition(".")[0] != "dfl":
        raise ConfigError(f"{class_path} {_FOREIGN}")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as err:
        raise ConfigError(f"{class_path} does not exist in this version of dfl") from err
    if not isinstance(found, type) or found.__module__.partition(".")[0] != "dfl":
        raise ConfigError(f"{class_path} {_FOREIGN}")
    return found
