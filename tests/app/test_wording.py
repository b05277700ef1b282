import pytest

from dfl.app.wording import in_plain_words
from dfl.cli import main


def _said(args: list[str], capsys) -> str:
    with pytest.raises(SystemExit):
        main(args)
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--threshold=high", "threshold: expected float, got high; `dfl evaluate --help` lists"),
        ("--nothing=1", "nothing"),
    ],
)
def test_error__of_an_option(option: str, said: str, capsys) -> None:
    shown = _said(["evaluate", "--scores=a.csv", option], capsys)
    assert said in shown
    assert "<class" not in shown


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("--heads.a.shrinkage=banana", "shrinkage: expected float or 'auto', got banana"),
        ("--heads.a.bogus=1", "--heads.a.bogus: no such option of lda"),
    ],
)
def test_error__of_a_nested_setting(setting: str, said: str, capsys) -> None:
    head = "--heads.a=dfl.heads.estimators.lda"
    shown = _said(["heads", "--features=f", "--out=o", head, setting], capsys)
    assert said in shown
    assert "Union" not in shown
    assert "NestedArg" not in shown


def test_in_plain_words__an_option_before_its_class_is_explained(capsys) -> None:
    args = ["extract", "--data.source.root=r", "--data.source=Pairs", "--out=o"]
    args += ["--backbones={}", "--data.source.pairs={}", "--data.crop=Resize", "--data.crop.size=8"]
    assert "name the class before its options" in _said(args, capsys)


def test_in_plain_words__leaves_the_rest_alone() -> None:
    assert in_plain_words("unrecognized arguments:\n --a 1") == "unrecognized arguments: --a 1"
