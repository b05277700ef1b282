"""The parser's complaints in plain words."""

import re
from typing import Final

from dfl.errors import one_line

_REWRITES: Final = (
    (r"""(?:Parser key "([^"]+)"|Problem with given class_path '([^']*)'): """, r"\1\2: "),
    # what all alternatives of a type have to say, of which the first is the one that was meant
    (
        r"(?:- )?Does not validate against any of the Union subtypes Subtypes: \[.*?\] Errors: - "
        r"|(?: - Expected a (?:<class '\S+'>|typing\.Literal\[.*?\]))+ Given value type: .*",
        "",
    ),
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
