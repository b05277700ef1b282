"""The steps of the demo and their order; dfl.demo's images and weights have tests of their own."""

from importlib import import_module
from pathlib import Path

import pytest
import yaml
from PIL import Image

from dfl.app.check import check_given
from dfl.app.given import with_flags
from dfl.app.parser import command_parser
from dfl.app.signature import signature_of
from dfl.commands.demo import demo
from dfl.commands.evaluate import evaluate
from dfl.commands.extract import extract
from dfl.commands.heads import heads


@pytest.fixture
def steps(tmp_path: Path, monkeypatch, capsys) -> list[list[str]]:
    """The commands that a demo would run, which do nothing here."""
    run: list[list[str]] = []
    module = import_module("dfl.commands.demo")
    monkeypatch.setattr(module, "write_demo", lambda out: [out.mkdir(parents=True)])
    monkeypatch.setattr(module, "draw_contact_sheet", lambda: Image.new("RGB", (4, 4)))
    monkeypatch.setattr(module, "demo_weights", lambda out: out / "weights.safetensors")
    monkeypatch.setattr(module, "run", run.append)
    demo(tmp_path / "my demo", seed=7)
    return run


def test_demo__steps_in_order_and_within_its_folder(steps, tmp_path: Path) -> None:
    assert [step[0] for step in steps] == ["extract", "heads", "fit", "test", "evaluate"]
    for option in (option for step in steps for option in step[1:]):
        assert "my demo" in option or not option.partition("=")[2].startswith("/")
    assert [path.name for path in tmp_path.iterdir()] == ["my demo"]
    # the test is of the model that was fitted, and keeps the logs of the fit
    fit, test = steps[2][1:], steps[3][1:]
    assert test[: len(fit)] == fit
    assert "--trainer.logger.name=heads" in test
    assert "--seed_everything=7" in steps[2]
    assert (tmp_path / "my demo" / "contact_sheet.png").is_file()


def test_demo__prints_commands_that_a_shell_takes(steps, tmp_path: Path, capsys) -> None:
    demo_out = tmp_path / "my demo"
    shown = capsys.readouterr().out
    assert f"$ dfl evaluate '--scores={demo_out}/heads' '--out={demo_out}/results'" in shown


def test_demo__is_one_process(steps, tmp_path: Path, monkeypatch, capsys) -> None:
    """Each step takes one device, or Lightning would begin the whole demo again for each other."""
    assert "--devices=1" in steps[0]
    probe = yaml.safe_load((tmp_path / "my demo/configs/probe.yaml").read_text())
    assert probe["trainer"]["devices"] == 1
    capsys.readouterr()
    monkeypatch.setenv("RANK", "1")
    demo(tmp_path / "other")
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(("index", "command"), [(0, extract), (1, heads), (4, evaluate)])
def test_demo__arguments_are_understood(steps, index: int, command) -> None:
    name, *args = steps[index]
    signature = signature_of(f"dfl.commands.{name}.{name}")
    assert signature is not None
    check_given(signature, args)
    parsed = command_parser(command).parse_args(with_flags(signature, args))
    assert "my demo" in str(parsed.out)
