import pytest

from dfl.features.origin import backbones_of
from dfl.types import FeatureLayer

CLIP = {"class_path": "c", "init_args": {"layers": ["pooled", "block3.cls"], "size": 32}}
DINO = {"class_path": "d", "init_args": {"layers": ["pooled"]}}


def _spec(*names: str) -> tuple[FeatureLayer, ...]:
    return tuple(FeatureLayer(name, 2, "aa") for name in names)


def test_backbones_of__those_and_the_layers_that_are_used() -> None:
    found = backbones_of(_spec("clip.block3.cls"), {"clip": CLIP, "dino": DINO})
    assert found == {"clip": CLIP | {"init_args": {"layers": ["block3.cls"], "size": 32}}}
    assert CLIP["init_args"]["layers"] == ["pooled", "block3.cls"]
    both = backbones_of(_spec("dino.pooled", "clip.pooled"), {"clip": CLIP, "dino": DINO})
    assert list(both) == ["dino", "clip"]


@pytest.mark.parametrize("backbones", [None, {}, {"clip": None}, {"clip": {"class_path": "c"}}])
def test_backbones_of__not_known(backbones) -> None:
    assert backbones_of(_spec("clip.pooled"), backbones) is None
