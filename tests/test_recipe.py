import hashlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from sklearn.preprocessing import StandardScaler
from torch.optim import SGD

from dfl.backbones import Backbone
from dfl.data import Augmentation, Crop
from dfl.data.images.crops import MultiCrop, Resize
from dfl.data.images.transforms import JPEG, GaussianBlur
from dfl.errors import ConfigError
from dfl.heads.storage.skops_file import TRUSTED_TYPES
from dfl.heads.tasks.scoring import ScoringTask
from dfl.recipe import build, describe, fingerprint_of, has_random_weights, public_name


@pytest.mark.parametrize(
    "value", [None, True, 3, 0.5, "a", [1, [2]], {"a": {"b": [None]}}], ids=str
)
def test_describe__plain_values_are_themselves(value) -> None:
    assert describe(value) == value
    assert build(describe(value)) == value


def test_describe__path_is_text() -> None:
    assert describe(Path("a") / "b") == "a/b"


def test_build__nested_objects_come_back() -> None:
    view = {
        "crop": MultiCrop(64, 9),
        "eval_transforms": [GaussianBlur((0.1, 2.0), p=0.5), JPEG(75)],
    }
    recipe = describe(view)
    assert recipe["crop"] == {
        "class_path": "dfl.data.MultiCrop",
        "init_args": {"size": 64, "count": 9},
    }
    again = build(recipe)
    assert describe(again) == recipe
    assert isinstance(again["crop"], MultiCrop)
    assert isinstance(again["eval_transforms"][0], GaussianBlur)


def test_describe__forgotten_argument_is_named() -> None:
    class Forgetful:
        def __init__(self, width: int) -> None:
            self.w = width

    with pytest.raises(ConfigError, match=re.escape("does not keep its argument 'width'")):
        describe(Forgetful(3))


@pytest.mark.parametrize(
    ("class_path", "message"),
    [
        ("os.system", "is not a class of dfl"),
        ("dfl.data.images.crops.Nothing", "does not exist"),
        ("dfl.recipe.build", "is not a class of dfl"),
        ("dfl.files.Path", "is not a class of dfl"),
    ],
)
def test_build__only_our_classes(class_path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build({"class_path": class_path, "init_args": {}})


def test_build__default_arguments() -> None:
    assert isinstance(
        build({"class_path": "dfl.data.images.crops.Resize", "init_args": {"size": 8}}), Resize
    )


def test_fingerprint_of__hashes_the_json_whatever_the_order_of_keys() -> None:
    expected = hashlib.sha256(b'{"a": [1, null], "b": "x"}').hexdigest()
    assert (
        fingerprint_of({"b": "x", "a": [1, None]})
        == fingerprint_of({"a": [1, None], "b": "x"})
        == expected
    )


def test_public_name__is_where_users_import_it_from() -> None:
    assert public_name(Resize) == "dfl.data.Resize"
    assert public_name(StandardScaler) == "sklearn.preprocessing.StandardScaler"
    assert public_name(SGD) == "torch.optim.SGD"

    class Local:
        pass

    assert public_name(Local) == f"{__name__}.{Local.__qualname__}"


def test_describe__a_class_that_moves_keeps_its_fingerprint(monkeypatch) -> None:
    """The file that defines a class is no part of what identifies the features it made."""

    def described_from(module: str) -> str:
        class Zoom:
            def __init__(self, size: int) -> None:
                self.size = size

        Zoom.__module__, Zoom.__qualname__ = module, "Zoom"
        package = ModuleType("outer")
        package.Zoom = Zoom
        monkeypatch.setitem(sys.modules, "outer", package)
        return fingerprint_of(describe(Zoom(8)))

    assert described_from("outer.crops") == described_from("outer.images.geometry")


def test_public_name__all_that_is_stored_is_exported_by_a_room() -> None:
    """Else the name on disk would be that of a file, which may move."""

    def concrete(base: type) -> set[type]:
        found = {base} if base.__module__.startswith("dfl.") else set()
        return found.union(*map(concrete, base.__subclasses__()))

    stored = set().union(*map(concrete, (Crop, Augmentation, Backbone, ScoringTask)))
    assert Resize in stored
    for cls in stored:
        assert public_name(cls).count(".") == 2, f"{cls} is exported by no room"
    for name in TRUSTED_TYPES:
        assert not name.startswith("dfl.") or name.count(".") == 2


def test_random_weights__wherever_a_recipe_says_so() -> None:
    for pretrained, is_random in ((False, True), (True, False), (None, False), ("openai", False)):
        recipe = {
            "class_path": "dfl.backbones.TimmBackbone",
            "init_args": {"pretrained": pretrained},
        }
        for where in (recipe, {"clip": recipe}, [{"kept": True}, {"a": [recipe]}]):
            assert has_random_weights(where) == is_random
    assert not has_random_weights(None)
