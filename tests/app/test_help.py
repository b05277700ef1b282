import pytest

from dfl.app.dispatch import COMMANDS, LIGHTNING, run
from dfl.app.help import command_help, option_help
from dfl.app.signature import Signature, signature_of

HERE = "tests.app.commands_to_read"


@pytest.fixture
def look() -> Signature:
    signature = signature_of(f"{HERE}.look")
    assert signature is not None
    return signature


def test_help__is_the_docstring(look: Signature) -> None:
    shown = command_help("look", look)
    for text in ("dfl look", "Look at something.", "Longer words.", "How often."):
        assert text in shown
    assert "    look --body x \\\n        --out y" in shown
    rows = [" ".join(line.split()) for line in shown.splitlines()]
    for row in (
        "--body CLASS Through what.",
        "--out PATH Where the result goes.",
        "--times NUMBER How often. (default: 1)",
        "--mode {day,night} When. (default: day)",
        "--folder Make a folder.",
        "--no_sharp Stay sharp; --no_sharp leaves it out.",
        "--bodies {NAME: CLASS, ...}",
        "--crop CLASS What is looked at.",
    ):
        assert row in rows
    assert rows.index("Needed:") < rows.index("--out PATH Where the result goes.")
    assert rows.index("Options:") < rows.index("--times NUMBER How often. (default: 1)")


def test_option_help__lists_and_describes(look: Signature) -> None:
    listed = option_help(look, "crop", None)
    assert listed is not None
    assert "dfl.data.Resize" in listed
    for name in ("Resize", "dfl.data.Resize"):
        described = option_help(look, "crop", name)
        assert described is not None
        assert "--crop.size NUMBER" in described
    inner = option_help(look, "body", None)
    assert inner is not None
    assert "--body.weight_g NUMBER" in inner
    nested = option_help(look, "body.lens", None)
    assert nested is not None
    assert "--body.lens.zoom NUMBER\n" in nested
    assert " How near. (default: 1.0)" in nested
    named = option_help(look, "bodies", None)
    assert named is not None
    assert "--bodies.NAME.weight_g" in named
    assert option_help(look, "crop", "my.Crop") is None


@pytest.mark.parametrize("name", [*COMMANDS, *LIGHTNING])
def test_help__every_option_is_described(name: str, capsys) -> None:
    with pytest.raises(SystemExit):
        run([name, "--help"])
    shown = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 100 for line in shown)
    rows = [line for line in shown if line.startswith("  --")]
    for row in rows:
        place = shown.index(row)
        assert row[26:].strip() or shown[place + 1].startswith(" " * 26), row


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["fit", "--help=all"], "--trainer.gradient_clip_val"),
        (["fit", "--trainer.logger.help", "WandbLogger"], "--trainer.logger.project"),
        (["fit", "--trainer.help"], "--trainer.max_epochs"),
        (["fit", "--model.help", "LinearProbeTask"], "--model.optimizer"),
        (["heads", "--heads.help=rbf_svm"], "--heads.NAME.gamma NUMBER|{scale,auto}"),
        (["heads", "--heads.help=no_such"], "dfl.heads.estimators.rbf_svm"),
        (["study", "--grids.help"], "--grids.NAME.features"),
        (["extract", "--data.crop.help"], "dfl.data.Resize"),
        (["detect", "--images.help"], "--images [PATH, ...]|PATH"),
    ],
)
def test_help__of_classes(args: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        run(args)
    assert caught.value.code == 0
    assert said in capsys.readouterr().out
