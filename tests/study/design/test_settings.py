from pathlib import Path

import pytest

from dfl.errors import ConfigError
from dfl.study.design.settings import Claim, Settings, check_names


def made(**changes: object) -> Settings:
    given = {
        "out": Path("out"),
        "title": "t",
        "metric": "ap",
        "replicates": 100,
        "claims": [],
        "config": "",
    }
    return Settings(**given | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicates": 99}, "replicates: at least 100 for an interval of 95 %, got 99"),
        ({"claims": [Claim("so", "condition", [])]}, "'so' says that .. is better than the others"),
        (
            {"claims": [Claim("so", "condition", ["a"], ["b", "a"])]},
            "name levels of condition, each once",
        ),
    ],
)
def test_settings__mistakes(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        made(**changes)


def test_check_names() -> None:
    check_names(conditions=["none", "blur-2", "_x"], baselines=["net"])
    check_names(may_be_empty=True, baselines=[])
    with pytest.raises(ConfigError, match="conditions: empty; name at least one"):
        check_names(conditions=[])
    for name in ("a b", "a.b", "-a", "", "../a", "ä"):
        with pytest.raises(ConfigError, match="cannot be a name; use letters, digits, _ and -"):
            check_names(conditions=["none", name])
