import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfl.errors import ScoreError
from dfl.evaluation import SCORE_COLUMNS, probability, read_scores, write_scores


def table(**columns):
    rows = {
        "path": ["a/1.png", "a/2.png", "b/3.png"],
        "dataset": ["p", "p", "p"],
        "generator": ["real", "real", "gan"],
        "split": ["test"] * 3,
        "label": [0, 0, 1],
        "score": [-1.5, 0.25, 2.0],
    }
    return pd.DataFrame(rows | columns)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_write_scores__reads_back_bit_for_bit(tmp_path, ending):
    score = np.array([0.1 + 0.2, -1e-308, np.nextafter(1e3, 2e3)])
    frame = table(
        score=score,
        path=['ü, "q".png', "line\nbreak.png", "a b.c.JPG"],
        generator=["NA", "", "007"],
        dataset=["nan", "1.10", "null"],
        label=[0, 1, -1],
    )
    file = tmp_path / "new" / f"scores.{ending}"
    write_scores(frame, file)
    back = read_scores(file)
    assert tuple(back.columns) == SCORE_COLUMNS
    assert back["score"].to_numpy().tobytes() == score.tobytes()
    assert back["label"].dtype == np.int64
    for name in ("path", "dataset", "generator", "split"):
        assert back[name].tolist() == frame[name].tolist()
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
ROWS = st.tuples(
    TEXT,
    TEXT,
    TEXT,
    TEXT,
    st.sampled_from([0, 1, -1]),
    st.floats(allow_nan=False, allow_infinity=False),
)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@given(rows=st.lists(ROWS, min_size=1, unique_by=lambda row: row[:2]))
def test_write_scores__give_any_table_back(tmp_path_factory, ending, rows):
    file = tmp_path_factory.getbasetemp() / f"any_scores.{ending}"
    frame = pd.DataFrame(rows, columns=list(SCORE_COLUMNS))
    write_scores(frame, file)
    pd.testing.assert_frame_equal(
        read_scores(file), frame, check_exact=True, check_dtype=False, check_column_type=False
    )


def test_write_scores__float32_keeps_its_value(tmp_path):
    score = np.array([0.1, 1 / 3, -7.7], dtype=np.float32)
    write_scores(table(score=score), tmp_path / "s.csv")
    np.testing.assert_array_equal(
        read_scores(tmp_path / "s.csv")["score"], score.astype(np.float64)
    )


def test_write_scores__orders_columns_and_keeps_extra(tmp_path):
    frame = table().assign(prob=[0.1, 0.5, 0.9])[["prob", "score", *SCORE_COLUMNS[:5]]]
    write_scores(frame, tmp_path / "s.csv")
    back = read_scores(tmp_path / "s.csv")
    assert tuple(back.columns) == (*SCORE_COLUMNS, "prob")
    assert back["prob"].tolist() == [0.1, 0.5, 0.9]


def test_write_scores__a_bad_table_leaves_the_old_file(tmp_path):
    file = tmp_path / "s.csv"
    write_scores(table(), file)
    before = file.read_bytes()
    with pytest.raises(ScoreError, match="row 3: score must be a finite number, got nan"):
        write_scores(table(score=[1.0, float("nan"), 2.0]), file)
    assert file.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("score", ["1", "inf", "2"], "row 3: score must be a finite number, got 'inf'"),
        ("score", ["1", "2", "high"], "row 4: score must be a finite number, got 'high'"),
        ("score", ["nan", "", ""], "rows 2, 3, 4: score must be a finite number, got 'nan', ''; "),
        ("label", ["2", "0", "1"], r"row 2: label must be 0 \(real\), 1 \(fake\) or -1, got '2'"),
        ("label", ["0", "fake", "1"], r"row 3: label must be .* got 'fake'"),
    ],
)
def test_read_scores__names_file_row_and_value(tmp_path, column, values, message):
    file = tmp_path / "s.csv"
    table().astype({column: object}).assign(**{column: values}).to_csv(file, index=False)
    with pytest.raises(ScoreError, match=message) as caught:
        read_scores(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_read_scores__missing_column(tmp_path):
    table().drop(columns=["split", "score"]).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(ScoreError, match="no column split, score; a score table has path, "):
        read_scores(tmp_path / "s.csv")


def test_read_scores__missing_file(tmp_path):
    with pytest.raises(ScoreError, match="no such score table"):
        read_scores(tmp_path / "s.csv")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage", b'a,b\n"open'])
def test_read_scores__unreadable_csv(tmp_path, content):
    (tmp_path / "s.csv").write_bytes(content)
    with pytest.raises(ScoreError, match=r"s\.csv: (not a readable score table|no column)"):
        read_scores(tmp_path / "s.csv")


def test_read_scores__unreadable_parquet(tmp_path):
    (tmp_path / "s.parquet").write_bytes(b"no parquet")
    with pytest.raises(ScoreError, match="not a readable score table"):
        read_scores(tmp_path / "s.parquet")


def test_read_scores__unknown_ending(tmp_path):
    with pytest.raises(ScoreError, match=r"ends in \.csv or \.parquet"):
        read_scores(tmp_path / "s.xlsx")


def test_write_scores__null_text(tmp_path):
    with pytest.raises(ScoreError, match="row 2: dataset must be text"):
        write_scores(table(dataset=[None, "p", "p"]), tmp_path / "s.csv")


@pytest.mark.parametrize("name", ["dataset", "generator", "split"])
def test_read_scores__numbers_where_text_should_be(tmp_path, name):
    table().assign(**{name: [1, 2, 3]}).to_parquet(tmp_path / "s.parquet")
    with pytest.raises(ScoreError, match=f"rows 2, 3, 4: {name} must be text, got 1, 2, 3;"):
        read_scores(tmp_path / "s.parquet")


def test_probability__is_the_logistic_function_without_overflow():
    score = np.array([0.0, 1.0, -1.0, 1e3, -1e3, -700.0])
    prob = probability(score)
    np.testing.assert_allclose(prob[:3], 1 / (1 + np.exp(-score[:3])), rtol=1e-15)
    assert prob[3] == 1.0
    assert prob[4] == 0.0
    assert prob[5] > 0.0


def test_read_scores__the_same_image_twice_in_a_dataset(tmp_path):
    table(path=["a", "b", "a"]).to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(ScoreError, match="row 4: path must occur once in a dataset, got 'a'"):
        read_scores(tmp_path / "s.csv")


def test_read_scores__the_same_image_in_two_datasets(tmp_path):
    write_scores(table(path=["a", "b", "a"], dataset=["p", "p", "q"]), tmp_path / "s.csv")
    assert len(read_scores(tmp_path / "s.csv")) == 3


def test_read_scores__all_faults_are_said_at_once(tmp_path):
    rows = pd.concat([table()] * 5, ignore_index=True)
    rows = rows.assign(path=[f"{i}.png" for i in range(15)], label=7, score=["x"] * 14 + ["1"])
    rows.to_csv(tmp_path / "s.csv", index=False)
    with pytest.raises(ScoreError) as caught:
        read_scores(tmp_path / "s.csv")
    where = "rows 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and"
    assert f"{where} 5 more: label must be 0 (real), 1 (fake) or -1, got '7'; " in str(caught.value)
    assert f"{where} 4 more: score must be a finite number, got 'x'; " in str(caught.value)
