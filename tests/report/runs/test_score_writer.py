import pandas as pd
import pytest
from lightning.pytorch.loggers import CSVLogger

from dfl.errors import ConfigError
from dfl.evaluation import probability, read_scores
from dfl.report.runs.score_writer import ScoreWriter, prediction_table
from tests.report.tiny_run import TinyData, TinyTask, six_scores, tiny_trainer


def run(root, stage, writer, **arguments):
    trainer = tiny_trainer(root, callbacks=[writer], **arguments)
    task = TinyTask(six_scores())
    if stage == "test":
        trainer.test(task, TinyData(), verbose=False)
    else:
        trainer.predict(task, TinyData())


def test_score_writer__test_writes_scores_into_the_run(tmp_path):
    logger = CSVLogger(tmp_path, name="n")
    run(tmp_path, "test", ScoreWriter(), logger=logger)
    back = read_scores(tmp_path / "n" / "version_0" / "scores.csv")
    pd.testing.assert_frame_equal(back, six_scores(), check_dtype=False)


def test_score_writer__predict_writes_what_a_user_reads(tmp_path):
    run(tmp_path, "predict", ScoreWriter())
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert table.columns.tolist() == ["path", "score", "prob", "verdict"]
    assert table["path"].tolist() == six_scores()["path"].tolist()
    assert table["prob"].tolist() == pytest.approx(probability(six_scores()["score"]))
    assert table["verdict"].tolist() == ["fake", "real", "real", "fake", "fake", "real", "fake"]
    assert not (tmp_path / "scores.csv").exists()


def test_score_writer__operating_point_of_the_detector(tmp_path):
    run(tmp_path, "predict", ScoreWriter(calibration=(2.0, -1.0)))
    table = pd.read_csv(tmp_path / "predictions.csv")
    score = six_scores()["score"]
    assert table["score"].tolist() == score.tolist()
    assert table["prob"].tolist() == pytest.approx(probability(2 * score - 1))
    assert (table["verdict"] == "fake").tolist() == (score > 0).tolist()
    assert table["verdict"].nunique() == 2


@pytest.mark.parametrize(("out", "file"), [("x/my.csv", "x/my.csv"), ("x", "x/predictions.csv")])
def test_score_writer__out_is_a_file_or_a_folder(tmp_path, out, file):
    run(tmp_path, "predict", ScoreWriter(str(tmp_path / out)))
    assert (tmp_path / file).is_file()


def test_score_writer__fast_dev_run_writes_nothing(tmp_path):
    run(tmp_path, "test", ScoreWriter(), fast_dev_run=True)
    assert list(tmp_path.iterdir()) == []


def test_score_writer__a_task_without_scores(tmp_path):
    trainer = tiny_trainer(tmp_path, callbacks=[ScoreWriter()])
    with pytest.raises(ConfigError, match=r"ScoreWriter needs a task that keeps a table \.scores"):
        trainer.test(TinyTask(), TinyData(), verbose=False)


def test_prediction_table__a_score_of_0_says_real():
    table = prediction_table(six_scores().assign(score=[0.0, 1e-300, -1.0, 1, 2, 3, 4]))
    assert table["verdict"].tolist()[:3] == ["real", "fake", "real"]
