"""A fitted pipeline as a skops file: an archive that runs no code of its own when it is read.

skops is imported where it is used: it walks through all of sklearn, which imports torch where that
is installed.
"""

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Final

from sklearn.exceptions import InconsistentVersionWarning
from sklearn.pipeline import Pipeline

from dfl.errors import HeadError
from dfl.heads.tree_check import TREE_TYPES, check_trees

__all__ = ["TRUSTED_TYPES", "check_types", "dump_pipeline", "load_pipeline", "other_version"]

TRUSTED_TYPES: Final = (
    "dfl.heads.autoencoder.Autoencoder",  # plain arrays and numbers
    "dfl.heads.encoder.BottleneckEncoder",  # plain arrays and mappings
    "dfl.heads.text.LearnedText",  # plain arrays and texts
    "dfl.heads.text.TextSimilarity",
    *TREE_TYPES,  # their content is checked after loading, before anything is scored
)
"""What a head may hold beyond the types that skops trusts by itself."""


def dump_pipeline(pipeline: Pipeline, file: Path) -> None:
    """Write a pipeline that `load_pipeline` can read.

    Args:
        pipeline: The pipeline.
        file: The file; it is written in place.

    Raises:
        HeadError: If the pipeline holds a type that is not trusted; the file is useless then.
        OSError: If the disk does not take it.
    """
    from skops import io

    try:
        io.dump(pipeline, file)
    except OSError:
        raise  # the disk's fault
    except Exception as err:  # a foreign estimator fails in ways of its own
        raise HeadError(
            f"{type(pipeline[-1]).__name__} cannot be stored ({_one_line(err)}); "
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
    from skops import io

    named = check_types(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InconsistentVersionWarning)
        try:
            pipeline = io.load(file, trusted=list(TRUSTED_TYPES))
        except InconsistentVersionWarning as err:
            raise HeadError(other_version(file, err.original_sklearn_version)) from err
        except Exception as err:  # a malformed file fails wherever its content is used
            raise HeadError(
                f"{file}: cannot be loaded ({_one_line(err)}); fit the head again"
            ) from err
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
    from skops import io

    try:
        named = io.get_untrusted_types(file=file)
    except Exception as err:  # a malformed file fails wherever its content is used
        raise HeadError(f"{file}: cannot be read ({_one_line(err)}); fit the head again") from err
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


def _one_line(err: Exception) -> str:
    return " ".join(f"{type(err).__name__}: {err}".split())
