"""What the READMEs name is there: files, commands with their options, classes, examples."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from dfl.app.dispatch import COMMANDS, LIGHTNING
from dfl.app.parser import command_parser
from tests.conftest import REPOSITORY

PLACES = ("", "configs", "configs/study", "dfl", "tests/benchmarks")
READMES = [pytest.param(REPOSITORY / place / "README.md", id=place or "top") for place in PLACES]


def _blocks(readme: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", readme.read_text("utf-8"), re.M | re.S)


def _commands(readme: Path) -> list[list[str]]:
    """List the command lines of dfl in a README, as its reader's shell would split them."""
    lines = "\n".join(_blocks(readme, "bash")).replace("\\\n", " ").splitlines()
    lines += re.findall(r"`([^`]+)`", readme.read_text("utf-8").replace("\n", " "))
    found = []
    for line in lines:
        start = re.match(r"(?:.*&& )?(?:dfl|python train\.py) (?=[a-z]+)", line)
        if start:
            found.append(shlex.split(line[start.end() :], comments=True))
    return found


def test_readmes__none_is_forgotten() -> None:
    tracked = {path.parent for path in REPOSITORY.glob("[a-z]*/**/README.md")}
    assert tracked <= {REPOSITORY / place for place in PLACES}


@pytest.mark.parametrize("readme", READMES)
def test_readme__links_lead_somewhere(readme: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", readme.read_text("utf-8"))
    local = [link for link in links if not link.startswith("https://")]
    assert [link for link in local if not (readme.parent / link).exists()] == []


@pytest.mark.parametrize("readme", READMES)
def test_readme__files_are_there(readme: Path) -> None:
    named = re.findall(r"(?<![\w/.])(?:configs|dfl|tests)/[\w./-]*\w", readme.read_text("utf-8"))
    assert [name for name in named if not (REPOSITORY / name).exists()] == []


@pytest.mark.parametrize("readme", READMES)
def test_readme__classes_and_modules_are_there(readme: Path) -> None:
    for name in set(re.findall(r"\bdfl(?:\.[A-Za-z_]\w*)+", readme.read_text("utf-8"))):
        module, _, last = name.rpartition(".")
        if not hasattr(import_module(module), last):
            import_module(name)


@pytest.mark.parametrize("readme", READMES)
def test_readme__commands_are_there(readme: Path) -> None:
    names = {command[0] for command in _commands(readme)}
    assert names <= {*COMMANDS, *LIGHTNING}


def test_readme__every_command_is_in_the_table() -> None:
    rows = re.findall(r"^\| (`[^|]+) \|", (REPOSITORY / "README.md").read_text("utf-8"), re.M)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} >= {*COMMANDS, *LIGHTNING}


@pytest.mark.parametrize("readme", READMES)
def test_readme__examples_parse(readme: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for block in _blocks(readme, "yaml"):
        assert yaml.safe_load(block)
    for block in _blocks(readme, "python"):
        compile(block, str(readme), "exec")
    for name, *args in _commands(readme):
        if name in COMMANDS and "--out" in args:  # what is not given in full is no example
            command = getattr(import_module(f"dfl.commands.{name}"), name)
            command_parser(command).parse_args(args)


def test_readme__ci_finds_the_two_commands() -> None:
    text = (REPOSITORY / "README.md").read_text("utf-8")
    for name in ("demo", "tests"):
        assert re.search(rf"^<!-- {name} -->\n```bash\n[^\n]+\n```$", text, re.M), name
