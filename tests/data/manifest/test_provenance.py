import pandas as pd
import pytest

from dfl.data.manifest.provenance import with_provenance
from dfl.errors import ConfigError


def rows(**columns: list[str]) -> pd.DataFrame:
    """Photographs of x in the datasets a and b, of y in c; fakes of three generators."""
    table = [
        ("x/1.jpg", 0, "a", "real"),
        ("x/1.jpg", 0, "b", "real"),
        ("y/1.jpg", 0, "c", "real"),
        ("a/1.png", 1, "a", "sd15"),
        ("b/1.png", 1, "b", "sd21"),
        ("c/1.png", 1, "c", "flux"),
        ("u/1.png", -1, "c", "unknown"),
    ]
    frame = pd.DataFrame(table, columns=["path", "label", "dataset", "generator"])
    return frame.assign(group=frame["path"], **columns)


def test_with_provenance__by_default_generators_and_linked_datasets() -> None:
    found = with_provenance(rows())
    assert found["family"].tolist() == ["", "", "", "sd15", "sd21", "flux", ""]
    assert found["source"].tolist() == ["a+b", "a+b", "c", "", "", "", ""]


def test_with_provenance__datasets_are_linked_by_groups_and_in_chains() -> None:
    names = [f"d{n}" for n in range(6)]
    frame = pd.DataFrame(
        [(f"{name}.jpg", 0, name, "real", "g" if name in ("d1", "d4") else name) for name in names]
        + [("d4.jpg", 0, "d5", "real", "g"), ("d0.jpg", 0, "d5", "real", "d0")],
        columns=["path", "label", "dataset", "generator", "group"],
    )
    found = with_provenance(frame)["source"].tolist()
    assert found == ["d0+d1+d4+1 more"] * 2 + ["d2", "d3"] + ["d0+d1+d4+1 more"] * 4


def test_with_provenance__maps() -> None:
    found = with_provenance(
        rows(), {"sd": ["sd15", "sd21"]}, {"press": ["x/*"], "holidays": ["c", "x/*"]}
    )
    assert found["family"].tolist() == ["", "", "", "sd", "sd", "flux", ""]
    assert found["source"].tolist() == ["press", "press", "holidays", "", "", "", ""]


def test_with_provenance__columns_and_copies_of_photographs() -> None:
    frame = rows(
        family=["", "", "", "vae", "", "", ""], source=["x", "x", "", "x", None, float("nan"), ""]
    )
    found = with_provenance(frame, {"decoders": ["vae"]}, {"press": ["x"]})
    assert found["family"].tolist() == ["", "", "", "decoders", "sd21", "flux", ""]
    assert found["source"].tolist() == ["press", "press", "c", "press", "", "", ""]


@pytest.mark.parametrize(
    ("families", "sources", "message"),
    [
        ({"sd": ["sd3", "sd15", "sd9"]}, {}, "no fake is of sd3, sd9; the generators are flux"),
        ({"sd": ["sd15"], "old": ["sd15"]}, {}, "sd15 in two of them"),
        ({}, {"press": ["z/*"]}, "no photograph is in z/\\*; name datasets \\(a, a\\+b, b, c\\)"),
    ],
)
def test_with_provenance__names_of_nothing(families, sources, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        with_provenance(rows(), families, sources)
