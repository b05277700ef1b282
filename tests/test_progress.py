import io

import pytest

from dfl.progress import progress


class Terminal(io.StringIO):
    """What says that a person is looking."""

    def isatty(self) -> bool:
        return True


def work() -> None:
    with progress("fit heads", 5, done=2, unit="head") as bar:
        for name in ("lda", "svm", "tree"):
            bar.set_description(f"fit {name}")
            bar.update()


def test_progress__is_silent_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    work()
    assert capfd.readouterr() == ("", "")


def test_progress__counts_on_a_terminal_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", screen := Terminal())
    work()
    assert "2/5" in screen.getvalue()
    assert "fit tree" in screen.getvalue()
    assert screen.getvalue().rstrip(" ").endswith("\r")  # the line is blank again


def test_progress__of_several_processes_the_first_one_shows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr", screen := Terminal())
    monkeypatch.setenv("RANK", "1")
    work()
    assert screen.getvalue() == ""
