"""The parser's complaints in plain words."""

import re
from typing import Final

from dfl.errors import one_line

__all__ = ["in_plain_words"]

_REWRITES: Final = (
    # what all alternatives of a type have to say: the alternatives are named again one by one
    (r"Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - ", ""),
    # that an option may be left out is no help to who has given it
    (r"(?: - |^)Expected a <class 'NoneType'>", ""),
    (r"Expected a <class '(?:\w+\.)*(\w+)'>", r"expected \1"),
    (r"Expected a typing\.Literal\[(.*?)\]", r"expected \1"),
    (r" - expected ", " or "),
    (r" Given value type: <class '[^']*'> Given value: NestedArg\(.*\)", ""),
    (r" Given value type: <class '[^']*'> Given value: (.+)", r", got \1"),
    (r"\. Got value: (.+)", r", got \1"),
    (r'Parser key "([^"]+)": ', r"\1: "),
    (r"Problem with given class_path ('[^']*')", r"\1"),
    (
        r"(Expected an instantiatable class, but \S+ is abstract)",
        r"\1; name the class before its options, as in --data.source Pairs --data.source.root data",
    ),
)


def in_plain_words(message: str) -> str:
    """Rewrite an error of jsonargparse.

    Args:
        message: What it says, perhaps in several lines, in the terms of Python's types.

    Returns:
        One line with the option, what it takes and what it was given. What is not recognised stays.
    """
    text = one_line(message)
    for pattern, replacement in _REWRITES:
        text = re.sub(pattern, replacement, text)
    return text
