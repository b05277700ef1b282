import pytest

from dfl.demo.photographs import PHOTOGRAPHS, Photograph, load_photograph, photograph_path
from dfl.errors import ConfigError


def test_photographs__each_name_and_file_on_one_side():
    assert len({p.name for p in PHOTOGRAPHS}) == len(PHOTOGRAPHS)
    assert len({(p.package, p.file) for p in PHOTOGRAPHS}) == len(PHOTOGRAPHS)
    assert {p.split for p in PHOTOGRAPHS} == {"train", "val", "test"}


@pytest.mark.parametrize("photograph", PHOTOGRAPHS, ids=lambda p: p.name)
def test_load_photograph__is_rgb_and_grey_as_said(photograph):
    pytest.importorskip(photograph.package, reason="needs the extra [demo]")
    image = load_photograph(photograph)

    red, green, blue = image.split()
    assert image.mode == "RGB"
    assert image.info == {}
    is_grey = red.tobytes() == green.tobytes() == blue.tobytes()
    assert is_grey == photograph.is_grey


def test_photograph_path__missing_package_names_the_extra():
    absent = Photograph("moon", "package_that_is_not_there", "moon.png", "train")

    with pytest.raises(ConfigError, match=r"moon.*not installed: pip install \"dfl\[demo\]\""):
        photograph_path(absent)


def test_photograph_path__missing_file_names_it():
    pytest.importorskip("skimage", reason="needs the extra [demo]")
    absent = Photograph("moon", "skimage", "data/not_there.png", "train")

    with pytest.raises(ConfigError, match=r"not_there\.png.*pip install \"dfl\[demo\]\""):
        photograph_path(absent)
