import hashlib
import re
from pathlib import Path

import pytest

from dfl.data.crops import MultiCrop, Resize
from dfl.data.transforms import JPEG, GaussianBlur
from dfl.errors import ConfigError
from dfl.recipe import build, describe, digest_of


@pytest.mark.parametrize(
    "value", [None, True, 3, 0.5, "a", [1, [2]], {"a": {"b": [None]}}], ids=str
)
def test_describe__plain_values_are_themselves(value) -> None:
    assert describe(value) == value
    assert build(describe(value)) == value


def test_describe__path_is_text() -> None:
    assert describe(Path("a") / "b") == "a/b"


def test_build__nested_objects_come_back() -> None:
    view = {"crop": MultiCrop(64, 9), "perturb": [GaussianBlur((0.1, 2.0), p=0.5), JPEG(75)]}
    recipe = describe(view)
    assert recipe["crop"] == {
        "class_path": "dfl.data.crops.MultiCrop",
        "init_args": {"size": 64, "count": 9},
    }
    again = build(recipe)
    assert describe(again) == recipe
    assert isinstance(again["crop"], MultiCrop)
    assert isinstance(again["perturb"][0], GaussianBlur)


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
        ("dfl.data.crops.Nothing", "does not exist"),
        ("dfl.recipe.build", "is not a class of dfl"),
        ("dfl.files.Path", "is not a class of dfl"),
    ],
)
def test_build__only_our_classes(class_path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build({"class_path": class_path, "init_args": {}})


def test_build__default_arguments() -> None:
    assert isinstance(
        build({"class_path": "dfl.data.crops.Resize", "init_args": {"size": 8}}), Resize
    )


def test_digest_of__hashes_the_json_whatever_the_order_of_keys() -> None:
    expected = hashlib.sha256(b'{"a": [1, null], "b": "x"}').hexdigest()
    assert (
        digest_of({"b": "x", "a": [1, None]}) == digest_of({"a": [1, None], "b": "x"}) == expected
    )
