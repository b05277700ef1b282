"""Manifests that nobody thought of, for the tests that hold for every manifest."""

from pathlib import Path

from hypothesis import strategies as st

from dfl.data.manifest.manifest import Manifest
from dfl.data.manifest.rules import SPLITS

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
"""What a file system or a table may hold: quotes, commas, line ends, any script."""


@st.composite
def manifests(draw: st.DrawFn, names: st.SearchStrategy[str] = NAMES) -> Manifest:
    """Draw a manifest that keeps every rule.

    Images have groups of several sizes, some are in several datasets, and some groups have a split.

    Args:
        draw: Given by hypothesis.
        names: Of paths, groups, datasets and generators.
    """
    paths = draw(st.lists(names, min_size=1, max_size=30, unique=True))
    groups = draw(st.lists(names, min_size=1, max_size=len(paths), unique=True))
    splits = {group: draw(st.sampled_from(["", *SPLITS])) for group in groups}
    datasets = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    generator = draw(names)
    rows = []
    for path in paths:
        group = draw(st.sampled_from(groups))
        known = {"path": path, "label": draw(st.sampled_from([0, 1])), "group": group}
        for dataset in draw(st.lists(st.sampled_from(datasets), min_size=1, unique=True)):
            row = {"dataset": dataset, "generator": generator, "split": splits[group]}
            rows.append(known | row)
    return Manifest.from_rows(draw(st.permutations(rows)), Path())
