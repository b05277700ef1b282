import pytest

from dfl.report.runs.results_printer import ResultsPrinter
from tests.report.tiny_run import TinyData, TinyTask, six_scores, tiny_trainer


@pytest.mark.parametrize("stage", ["test", "validate"])
def test_results_printer__prints_datasets_and_generators(tmp_path, capsys, stage):
    trainer = tiny_trainer(tmp_path, callbacks=[ResultsPrinter()])
    getattr(trainer, stage)(TinyTask(six_scores()), TinyData(), verbose=False)
    starts = {line.split(" ")[0] for line in capsys.readouterr().out.splitlines()}
    assert {"Dataset", "p", "q", "all", "Generator", "gan", "ldm"} <= starts


def test_results_printer__is_silent_during_fit(tmp_path, capsys):
    trainer = tiny_trainer(tmp_path, callbacks=[ResultsPrinter()])
    trainer.fit(TinyTask(six_scores()), TinyData())
    assert "Dataset" not in capsys.readouterr().out
