import re
from argparse import ArgumentError
from pathlib import Path

import pytest

from dfl.app.check import check_given
from dfl.app.signature import Signature, signature_of
from tests.conftest import REPOSITORY


@pytest.fixture
def look() -> Signature:
    signature = signature_of("tests.app.commands_to_read.look")
    assert signature is not None
    return signature


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def _refused(look: Signature, *args: str) -> str:
    with pytest.raises(ArgumentError) as caught:
        check_given(look, args)
    return str(caught.value)


def test_check__what_is_right_passes(look: Signature) -> None:
    Path("body.yaml").write_text("{lens: {zoom: 1e-3}, weight_g: 3, strap: nylon}\n")
    Path("c.yaml").write_text(
        "body: {lens: {class_path: my.Lens, init_args: {colour: red}}, weight_g: 2}\n"
        "crop: {class_path: dfl.data.Resize, init_args: {size: 32}}\nout: x\n"
        "bodies: {a: {lens: {}, weight_g: 1}, b: body.yaml}\n"
    )
    check_given(look, ["-c", "c.yaml"])
    check_given(look, ["--config=c.yaml", "--crop.size=3", "--body.lens.zoom", "2"])
    check_given(look, ["--config=c.yaml", "--crop=dfl.data.RandomCrop", "--crop.size=3"])
    check_given(look, ["--body=body.yaml", "--out=x"])
    check_given(look, ["--print_config"])


def test_check__all_that_is_unknown_is_named_with_what_is_nearest(look: Signature) -> None:
    Path("sub").mkdir()
    Path("sub/body.yaml").write_text("weight: 3\n")  # beside the file that names it
    Path("sub/c.yaml").write_text(
        "body: body.yaml\ntime: 2\ncrop: {class_path: dfl.data.Resize, init_args: {sise: 32}}\n"
        "bodies: {mine: {weight_k: 1}}\n"
    )
    said = _refused(look, "--config=sub/c.yaml", "--modes=day", "--zzz=1")
    assert said.split("; ") == [
        "--body.weight: no such option of Body, nearest: --body.weight_g",
        "--time: no such option, nearest: --times",
        "--crop.sise: no such option of Resize, nearest: --crop.size",
        "--bodies.mine.weight_k: no such option of Body, nearest: --bodies.mine.weight_g",
        "--modes: no such option, nearest: --mode",
        "--zzz: no such option",
    ]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--crop=Resise", "--crop: no class Resise, nearest: dfl.data.Resize"),
        ("--times=often", "--times: expected int, got often"),
        ("--mode=dusk", "--mode: expected 'day', 'night', got dusk"),
        ("--folder=maybe", "--folder: expected bool, got maybe"),
        ("--bodies.a.weight_g=heavy", "--bodies.a.weight_g: expected int, got heavy"),
        ("--crop=dfl.data.Zzz", "--crop: no class dfl.data.Zzz, --crop.help lists what there is"),
        ("--body.lens.zooom=2", "--body.lens.zooom: no such option of Lens, nearest: --body.l"),
        ("--weight_g=3", "--weight_g: no such option, nearest: --body.weight_g"),
        ("--body.zoom=3", "--body.zoom: no such option of Body, nearest: --body.lens.zoom"),
        ("--config=none.yaml", "--config none.yaml: no such file"),
    ],
)
def test_check__classes_and_files(look: Signature, option: str, said: str) -> None:
    assert said in _refused(look, option)


def test_check__a_config_that_cannot_be_read(look: Signature) -> None:
    for text, said in (
        ("a: [1,\n b: }", "--config c.yaml: not readable as YAML (while parsing a flow"),
        ("- a\n- b\n", "--config: holds no options by name, but ['a', 'b']"),
        ("", "--config: holds no options by name, but None"),
    ):
        Path("c.yaml").write_text(text)
        assert said in _refused(look, "--config=c.yaml", "--out=x")


def test_check__values_without_an_option(look: Signature) -> None:
    assert "head in: say what each is, as in --body head" in _refused(look, "head", "in", "--out=x")


def test_check__what_has_to_be_given(look: Signature) -> None:
    assert _refused(look) == "missing: --body, --out"
    assert _refused(look, "--out=x", "--body.weight_g=2") == "missing: --body.lens"
    assert _refused(look, "--out=x", "--body.lens={}", "--crop=Resize") == "missing: --crop.size"
    assert _refused(look, "--out=x", "--body.lens.zoom=2", "--mod=day").startswith("--mod: no such")


@pytest.mark.parametrize("config", sorted((REPOSITORY / "configs").glob("*/*.yaml")), ids=str)
def test_check__every_config_of_the_repository_passes(config: Path) -> None:
    kind = config.parent.name
    command, args = {
        "study": ("dfl.commands.study.study", [f"--config={config}"]),
        "experiment": ("dfl.app.lightning_cli.LightningOptions", [f"--config={config}"]),
        "model": ("dfl.app.lightning_cli.LightningOptions", [f"--model={config}"]),
        "data": ("dfl.app.lightning_cli.LightningOptions", [f"--data={config}"]),
        "trainer": ("dfl.app.lightning_cli.LightningOptions", [f"--trainer={config}"]),
        "logger": ("dfl.app.lightning_cli.LightningOptions", [f"--trainer.logger={config}"]),
        "head": ("dfl.commands.heads.heads", [f"--config={config}"]),
        "extract": ("dfl.commands.extract.extract", [f"--config={config}"]),
        "reconstruct": ("dfl.commands.reconstruct.reconstruct", [f"--config={config}"]),
    }[kind]
    signature = signature_of(command)
    assert signature is not None
    missing = ""
    try:
        check_given(signature, args)
    except ArgumentError as err:
        missing = str(err)
    # a part of a config leaves the rest to others
    assert re.fullmatch(r"(missing: --\w+(, --\w+)*)?", missing)
