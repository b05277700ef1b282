from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentError

from dfl.app.parser import run_command


@dataclass
class Lens:
    """What a small command is configured with.

    Args:
        zoom: How near.
    """

    zoom: float = 1.0


def look(lens: Lens, out: Path, times: int = 1, folder: bool = False) -> list[object]:
    """Look at something.

    Longer words.

    Args:
        lens: Through what.
        out: Where the result goes.
        times: How often.
        folder: Whether the result is a folder.
    """
    if folder:
        out.mkdir(exist_ok=True)
    elif times:
        out.write_text("seen")
    return [lens, out, times]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_run__options_override_the_config_file() -> None:
    Path("c.yaml").write_text("lens: {zoom: 2}\nout: a.csv\ntimes: 3\n")
    assert run_command(look, ["--config=c.yaml"]) == [Lens(2.0), Path("a.csv"), 3]
    assert run_command(look, ["--config=c.yaml", "--times=4"])[2] == 4
    assert run_command(look, ["--config=c.yaml", "--lens.zoom=5"])[0] == Lens(5.0)


def test_run__a_later_config_file_overrides() -> None:
    Path("a.yaml").write_text("out: a.csv\ntimes: 3\nlens.zoom: 2\n")
    Path("b.yaml").write_text("times: 4\n")
    assert run_command(look, ["--config=a.yaml", "--config=b.yaml"]) == [
        Lens(2.0),
        Path("a.csv"),
        4,
    ]


def test_run__sub_config_file() -> None:
    Path("lens.yaml").write_text("zoom: 7\n")
    assert run_command(look, ["--lens=lens.yaml", "--out=a.csv"])[0] == Lens(7.0)
    Path("sub").mkdir()
    Path("sub/whole.yaml").write_text("lens: lens.yaml\nout: a.csv\n")
    Path("sub/lens.yaml").write_text("zoom: 8\n")  # beside the file that names it
    assert run_command(look, ["--config=sub/whole.yaml"])[0] == Lens(8.0)


def test_run__resolved_config_beside_the_result_repeats_the_run() -> None:
    Path("lens.yaml").write_text("zoom: 7\n")
    first = run_command(look, ["--lens=lens.yaml", "--out=a.csv"])
    resolved = Path("a.csv.config.yaml")
    assert yaml.safe_load(resolved.read_text()) == {
        "lens": {"zoom": 7.0},
        "out": "a.csv",
        "times": 1,
        "folder": False,
    }
    Path("lens.yaml").unlink()
    assert run_command(look, [f"--config={resolved}"]) == first

    run_command(look, ["--lens.zoom=7", "--out=f", "--folder=true"])
    assert yaml.safe_load(Path("f/config.yaml").read_text())["folder"] is True
    run_command(look, ["--lens.zoom=9", "--out=f", "--folder=true"])
    assert yaml.safe_load(Path("f/config.yaml").read_text())["lens"] == {"zoom": 9.0}


def test_run__the_config_given_is_not_replaced() -> None:
    Path("f").mkdir()
    mine = "# mine\nlens: {zoom: 2}\nout: f\nfolder: true\n"
    Path("f/config.yaml").write_text(mine)
    run_command(look, ["--config=f/config.yaml", "--times=2"])
    assert Path("f/config.yaml").read_text() == mine


def test_run__no_result_no_config() -> None:
    run_command(look, ["--lens.zoom=1", "--out=a.csv", "--times=0"])
    assert list(Path().iterdir()) == []


def plan(out: Path) -> None:
    """Only look what there is to do."""


def test_run__nothing_made_no_config() -> None:
    Path("out").mkdir()
    Path("out/config.yaml").write_text("mine")
    run_command(plan, ["--out=out"])
    assert Path("out/config.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--lens.zoom=1"], "out"),
        (["--out=a", "--times=often"], "times"),
        (["--out=a", "--lens.focus=1"], "focus"),
        (["--out=a", "--lens=none.yaml"], "none.yaml"),
    ],
)
def test_run__wrong_arguments_are_raised(args: list[str], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        run_command(look, args)
