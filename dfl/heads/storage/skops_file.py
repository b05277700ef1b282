"""A fitted pipeline as a skops file: an archive that runs no code of its own when it is read.

skops is imported where it is used, and slow: it walks through all of sklearn.
"""

import json
import sys
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Final, cast
from zipfile import ZipFile

from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import Pipeline

from dfl.errors import HeadError, one_line
from dfl.heads.storage.tree_check import TREE_TYPES, check_trees
from dfl.recipe import public_name

TRUSTED_TYPES: Final = (
    "dfl.heads.Autoencoder",  # plain arrays and numbers
    "dfl.heads.Balanced",  # an estimator, which is checked as any other
    "dfl.heads.BlockScaler",  # plain arrays
    "dfl.heads.BottleneckEncoder",  # plain arrays and mappings
    "dfl.heads.LearnedText",  # plain arrays and texts
    "dfl.heads.LinearProbe",
    "dfl.heads.OnePerFamily",  # estimators or plain arrays
    "dfl.heads.PhotographDistance",  # plain arrays and numbers
    "dfl.heads.Prototypes",  # plain arrays and texts
    "dfl.heads.RINE",  # plain arrays
    "dfl.heads.Shuffled",  # an estimator
    "dfl.heads.TextSimilarity",
    "dfl.heads.Without",  # an estimator, and texts
    *TREE_TYPES,  # their content is checked after loading, before anything is scored
)
"""What a head may hold beyond the types that skops trusts by itself."""

_SCHEMA: Final = "schema.json"  # skops's name for what the archive's arrays belong to


def _skops_io() -> ModuleType:
    """Import skops without torch: a part of sklearn that nothing here uses would load it."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # Python's way to forbid an import
    try:
        from skops import io
    finally:
        if hidden:
            del sys.modules["torch"]
    return cast(ModuleType, io)


def dump_pipeline(pipeline: Pipeline, file: Path) -> None:
    """Write a pipeline that `load_pipeline` can read.

    Args:
        pipeline: The pipeline.
        file: The file; it is written in place.

    Raises:
        HeadError: If the pipeline holds a type that is not trusted; the file is useless then.
        OSError: If the disk does not take it.
    """
    io = _skops_io()

    try:
        io.dump(pipeline, file)
        _name_publicly(file)
    except OSError:
        raise  # the disk's fault
    except Exception as err:  # a foreign estimator fails in ways of its own
        reason = one_line(f"{type(err).__name__}: {err}")
        raise HeadError(
            f"{type(pipeline[-1]).__name__} cannot be stored ({reason}); "
            "use the estimators of dfl.heads.estimators"
        ) from err
    check_types(file)


def load_pipeline(file: Path) -> Pipeline:
    """Read a pipeline; nothing is built but trusted types.

    Args:
        file: What `dump_pipeline` wrote.

    Returns:
        The pipeline, equal to the one that was stored.

    Raises:
        HeadError: If the file is damaged, holds another type or no pipeline, or was made by another
            version of sklearn.
    """
    io = _skops_io()

    named = check_types(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InconsistentVersionWarning)
        try:
            pipeline = io.load(file, trusted=list(TRUSTED_TYPES))
        except InconsistentVersionWarning as err:
            raise HeadError(other_version(file, err.original_sklearn_version)) from err
        except Exception as err:  # a malformed file fails wherever its content is used
            reason = one_line(f"{type(err).__name__}: {err}")
            raise HeadError(f"{file}: cannot be loaded ({reason}); fit the head again") from err
    if not isinstance(pipeline, Pipeline):
        raise HeadError(
            f"{file}: holds a {type(pipeline).__name__}, not a Pipeline; fit the head again"
        )
    if named.intersection(TREE_TYPES):
        check_trees(pipeline, file)
    return pipeline


def check_types(file: Path) -> set[str]:
    """Look through a file without building anything.

    Args:
        file: A skops file.

    Returns:
        The types of `TRUSTED_TYPES` that it names.

    Raises:
        HeadError: If it cannot be read, or names a type that neither skops nor `TRUSTED_TYPES`
            trusts.
    """
    io = _skops_io()

    try:
        named = io.get_untrusted_types(file=file)
    except Exception as err:  # a malformed file fails wherever its content is used
        reason = one_line(f"{type(err).__name__}: {err}")
        raise HeadError(f"{file}: cannot be read ({reason}); fit the head again") from err
    foreign = sorted(set(named) - set(TRUSTED_TYPES))
    if foreign:
        raise HeadError(
            f"{file}: holds the type {foreign[0]}, which is not trusted; "
            "use the estimators of dfl.heads.estimators"
        )
    return set(named)


def other_version(file: Path, made_by: str) -> str:
    """Say that a file is another sklearn's, and what to do."""
    return (
        f"{file}: made by scikit-learn {made_by}, {version('scikit-learn')} is installed; "
        f"fit the head again or install scikit-learn=={made_by}"
    )


def _name_publicly(file: Path) -> None:
    """Name our classes as users import them: a file outlives the module that defines a class."""
    with ZipFile(file) as archive:
        text = archive.read(_SCHEMA)
        if b'"dfl.' not in text:
            return
        content = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(text)
    _rename(schema)
    content[_SCHEMA] = json.dumps(schema, indent=2).encode()
    with ZipFile(file, "w") as archive:
        for name, member in content.items():
            archive.writestr(name, member)


def _rename(node: object) -> None:
    if isinstance(node, list):
        for item in node:
            _rename(item)
    elif isinstance(node, dict):
        module, name = node.get("__module__"), node.get("__class__")
        if isinstance(module, str) and module.partition(".")[0] == "dfl":
            public = public_name(getattr(import_module(module), str(name)))
            node["__module__"] = public.rpartition(".")[0]
        for item in node.values():
            _rename(item)
