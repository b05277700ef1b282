import pytest

from dfl.types import FeatureLayer, spec_difference
from tests.heads.sklearn_examples import SPEC


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (SPEC, None),
        (SPEC[:1], "layer 'dino.pooled' is missing (there: clip.pooled)"),
        (SPEC[::-1], "it takes clip.pooled, dino.pooled in this order, not dino.pooled, clip.po"),
        ((SPEC[0], FeatureLayer("dino.pooled", 5, "b" * 64)), "'dino.pooled' has 5 columns, not 4"),
        (
            (FeatureLayer("clip.pooled", 8, "d" * 64), SPEC[1]),
            "layer 'clip.pooled' has the fingerprint dddddddd, not aaaaaaaa",
        ),
    ],
)
def test_spec_difference__names_the_first(
    found: tuple[FeatureLayer, ...], message: str | None
) -> None:
    difference = spec_difference(SPEC, found)

    assert difference is None if message is None else message in str(difference)


@pytest.mark.parametrize("found", [SPEC[::-1], (FeatureLayer("vit.cls", 3, "e" * 64), *SPEC)])
def test_spec_difference__of_a_subset(found: tuple[FeatureLayer, ...]) -> None:
    assert spec_difference(SPEC, found, subset=True) is None
    assert spec_difference(SPEC, found) is not None


def test_spec_difference__of_a_subset_that_is_none() -> None:
    assert spec_difference(SPEC, SPEC[1:], subset=True) == (
        "layer 'clip.pooled' is missing (there: dino.pooled)"
    )
