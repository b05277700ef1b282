import shutil

import pandas as pd
import pytest
from PIL import Image

from dfl.commands.evaluate import evaluate
from dfl.errors import ScoreError
from dfl.evaluation import metric_table, write_scores

COLUMNS = ["path", "dataset", "generator", "split", "label", "score"]


def table(shift=0.0, split="test"):
    rows = []
    for i in range(6):
        rows.append((f"{split}r{i}", "p", "real", split, 0, -1.0 + 0.4 * i))
        rows.append((f"{split}f{i}", "p", "gan", split, 1, shift + 1.0 - 0.3 * i))
    return pd.DataFrame(rows, columns=COLUMNS)


@pytest.fixture
def heads(tmp_path):
    for name, shift in (("svm", 0.0), ("lda", 1.0)):
        both = pd.concat([table(shift), table(5.0, "train")])
        write_scores(both, tmp_path / "heads" / name / "scores.csv")
    return tmp_path / "heads"


def test_evaluate__prints_each_table_and_the_comparison(heads, capsys):
    tidy = evaluate([heads / "svm" / "scores.csv", heads / "lda" / "scores.csv"])
    out = capsys.readouterr().out
    assert "svm (test)" in out
    assert "Generator" in out
    assert "Comparison" in out
    assert tidy["scores"].unique().tolist() == ["svm", "lda"]
    layer = tidy[tidy["scores"] == "lda"].drop(columns=["scores", "split"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(layer, metric_table(table(1.0)))


def test_evaluate__a_folder_stands_for_its_tables(heads):
    assert evaluate(heads)["scores"].unique().tolist() == ["lda", "svm"]


def test_evaluate__heads_that_are_half_made_are_none(heads):
    for name in (".svm.new.0a1b2c3d", ".lda.old.12-0123abcd"):
        shutil.copytree(heads / "svm", heads / name)
    assert evaluate(heads)["scores"].unique().tolist() == ["lda", "svm"]


def test_evaluate__takes_test_rows_by_default_and_others_on_demand(heads):
    assert set(evaluate(heads)["split"]) == {"test"}
    everything = evaluate(heads / "svm", split="all")
    pooled = everything[everything["scope"] == "pooled"].iloc[0]
    assert (pooled["n_real"], pooled["split"]) == (12, "test+train")
    assert evaluate(heads / "svm", split="train")["accuracy"].min() > 0.7


def test_evaluate__a_table_of_one_split_is_taken_as_it_is(tmp_path):
    write_scores(table(split=""), tmp_path / "mine.csv")
    assert evaluate(tmp_path / "mine.csv")["scores"].unique().tolist() == ["mine"]


def test_evaluate__writes_metrics_and_figures(heads, tmp_path):
    tidy = evaluate(heads, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    figures = [f"{head}-{kind}.png" for head in ("lda", "svm") for kind in ("confusion", "roc")]
    assert names == sorted(["metrics.csv", *figures])
    back = pd.read_csv(tmp_path / "out" / "metrics.csv")
    pd.testing.assert_frame_equal(back, tidy, check_dtype=False)
    with Image.open(tmp_path / "out" / "svm-roc.png") as figure:
        assert min(figure.size) > 300


def test_evaluate__threshold(heads):
    high = evaluate(heads / "svm", threshold=100.0)
    assert high.query("scope == 'pooled'")["accuracy"].item() == 0.5


def test_evaluate__probabilities_need_a_threshold(tmp_path, caplog):
    scores = table()
    file = tmp_path / "mine.csv"
    write_scores(scores.assign(score=(scores["score"] + 2) / 10), file)
    with pytest.raises(
        ScoreError, match=r"^mine: its scores all lie in \[0, 1\], .* --threshold 0.5"
    ):
        evaluate(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for threshold in (0.2, 0.0):
        accuracy = evaluate(file, threshold=threshold)["accuracy"].iloc[0]
        assert accuracy == evaluate_of(scores, (threshold * 10) - 2)
    assert not caplog.messages
    # larger ones are margins of a head that calls all images fake
    write_scores(scores.assign(score=scores["score"] + 2), file)
    assert evaluate(file)["accuracy"].iloc[0] == 0.5
    assert caplog.messages == [
        "mine: no score is below 0, so all images count as fake; --threshold sets another limit"
    ]
    write_scores(scores[scores["label"] == 1].assign(score=0.5), file)
    evaluate(file)  # of fakes alone, all of which are found


def evaluate_of(scores, threshold):
    return metric_table(scores, threshold=threshold)["accuracy"].iloc[0]


def test_evaluate__names_tell_tables_apart(tmp_path):
    files = [tmp_path / "a" / "svm" / "scores.csv", tmp_path / "b" / "svm" / "scores.csv"]
    files += [tmp_path / "c" / "x.csv", tmp_path / "c" / "x.parquet"]
    for file in files:
        write_scores(table(), file)
    assert evaluate(files[:2])["scores"].unique().tolist() == ["a/svm", "b/svm"]
    assert evaluate([files[0], files[0]])["scores"].unique().tolist() == ["svm"]
    assert evaluate(files[2:])["scores"].unique().tolist() == [str(file) for file in files[2:]]


@pytest.mark.parametrize(
    ("scores", "split", "message"),
    [
        ("none.csv", None, "no such score table"),
        ("", "val", r"no rows of the split 'val', only 'test', 'train'; choose --split"),
        ("empty", None, r"no scores\.csv in this folder"),
    ],
)
def test_evaluate__refuses_and_writes_nothing(heads, tmp_path, scores, split, message):
    (heads / "empty").mkdir()
    with pytest.raises(ScoreError, match=message):
        evaluate(heads / scores, tmp_path / "out", split=split)
    assert not (tmp_path / "out").exists()


def test_evaluate__several_splits_but_no_test(tmp_path):
    both = pd.concat([table(split="val"), table(split="train")])
    write_scores(both, tmp_path / "s.csv")
    with pytest.raises(ScoreError, match="no rows of the split 'test', only 'val', 'train'"):
        evaluate(tmp_path / "s.csv")


def test_evaluate__no_table():
    with pytest.raises(ScoreError, match="at least one"):
        evaluate([])


def test_evaluate__figures_of_names_that_look_alike_in_a_file_name(tmp_path):
    for folder in ("x/a-b", "y/a-b", "x-a/b", "x/a/b"):
        write_scores(table(), tmp_path / "in" / folder / "scores.csv")
    evaluate(tmp_path / "in", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*-roc.png"))) == 4
