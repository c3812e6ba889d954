"""predict.py: the table that a user gets, of files of every kind; bad rows; mistakes, each with its exit code."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import asked

TEXTS = ["the cat", "dog ran home", "a mat"]
WORDS = {"bad": "dog", "good": "ran"}
# Label and p_bad: the softmax of `glm_model.score` for "<text> It was [MASK].", computed by itself.
GOLDEN = [("bad", 0.7742028), ("bad", 0.5522655), ("good", 0.3285025)]


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_tokenizer) -> str:
    return asked.teach(asked.model_folder(tmp_path_factory.mktemp("models") / "small", tiny_tokenizer), WORDS)


def table(folder: Path) -> pa.Table:
    return pq.read_table(folder / "out")


def test_golden_table_of_a_fixed_model(run, tmp_path):
    (tmp_path / "new.csv").write_text("no,text\n" + "".join(f"{n},{text}\n" for n, text in enumerate(TEXTS)))
    code, out, err = run("--input=new.csv")
    assert (code, err) == (0, "")
    assert "3 rows in" in out
    found = table(tmp_path)
    assert found.column_names == ["no", "text", "label", "p_bad", "p_good", "tokens_cut", "reason"]
    assert found.select(["no", "text", "tokens_cut", "reason"]).to_pylist() == [
        {"no": str(n), "text": text, "tokens_cut": 0, "reason": None} for n, text in enumerate(TEXTS)
    ]
    assert found["label"].to_pylist() == [label for label, _ in GOLDEN]
    assert found["p_bad"].to_pylist() == pytest.approx([share for _, share in GOLDEN], abs=1e-5)
    assert found["p_good"].to_pylist() == pytest.approx([1 - share for _, share in GOLDEN], abs=1e-5)


def test_a_column_of_the_input_keeps_its_name_and_ours_gets_another(run, tmp_path):
    (tmp_path / "new.csv").write_text("label,text,p_bad\nbad,the cat,0\nno label of ours,a mat,1\n")
    assert run("--input=new.csv")[0] == 0
    found = table(tmp_path)
    assert found.column_names == [
        "label", "text", "p_bad", "predicted_label", "predicted_p_bad", "p_good", "tokens_cut", "reason"
    ]  # fmt: skip
    assert found["label"].to_pylist() == ["bad", "no label of ours"]


def test_parquet_keeps_its_types_and_files_of_other_columns_stand_behind_each_other(run, tmp_path):
    (tmp_path / "in").mkdir()
    pq.write_table(
        pa.table({"n": [1, None], "text": TEXTS[:2], "when": pa.array([0, 1], pa.date32())}),
        tmp_path / "in" / "a.parquet",
    )
    (tmp_path / "in" / "b.jsonl").write_text('{"text": "a mat", "more": 5}\n')
    assert run("--input=in")[0] == 0
    found = table(tmp_path)
    assert [str(found.schema.field(name).type) for name in ("n", "text", "when", "more")] == [
        "int64", "string", "date32[day]", "string"
    ]  # fmt: skip
    assert found["n"].to_pylist() == [1, None, None]
    assert found["more"].to_pylist() == [None, None, "5"]
    assert found["text"].to_pylist() == TEXTS


BAD = "text,n\nthe cat,1\nodd,2,3\n" + "go " * 60 + ",4\na mat,5\n"


@pytest.mark.parametrize(
    ("argv", "reasons", "cut"),
    [
        ((), [None, "new.csv:3: 3 fields instead of 2 (text, n)", None, None], [0, None, 18, 0]),
        (
            ("--overlong=skip",),
            [None, "new.csv:3: 3 fields instead of 2 (text, n)", "new.csv:4: 66 tokens, and the model has 48 positions",
             None],
            [0, None, None, 0],
        ),
    ],
)  # fmt: skip
def test_bad_rows_are_rows_with_their_reason(run, tmp_path, argv, reasons, cut):
    (tmp_path / "new.csv").write_text(BAD)
    code, out, _ = run("--input=new.csv", "--max_bad=0.5", *argv)
    found = table(tmp_path)
    assert code == 0
    assert found["reason"].to_pylist() == reasons
    assert found["tokens_cut"].to_pylist() == cut
    assert [label is None for label in found["label"].to_pylist()] == [reason is not None for reason in reasons]
    assert f"{sum(reason is not None for reason in reasons)} without an answer (column reason)" in out


def test_rows_without_text_are_rows_with_their_reason_whatever_the_column_holds(run, tmp_path):
    rows = pa.table({"text": ["the cat", None, " "], "n": pa.array([1.5, None, 3])})
    (tmp_path / "in").mkdir()
    pq.write_table(rows, tmp_path / "in" / "a.parquet")
    pq.write_table(pa.table({"text": [7], "n": ["x"]}), tmp_path / "in" / "b.parquet")
    (tmp_path / "in" / "c.jsonl").write_text('{"n": 1}\n{"text": null}\n[1]\n{"text": ["a", 1]}\n')
    assert run("--input=in", "--max_bad=1")[0] == 0
    found = table(tmp_path)
    assert found["text"].to_pylist() == ["the cat", None, " ", "7", None, "", None, '["a", 1]']
    assert found["reason"].to_pylist() == [
        None,
        "a.parquet:2: the column 'text' is empty",
        "a.parquet:3: the column 'text' is empty",
        None,
        "c.jsonl:1: no field 'text', but n",
        "c.jsonl:2: the column 'text' is empty",
        "c.jsonl:3: expected a JSON object, got list",
        None,
    ]


@pytest.mark.parametrize(
    ("text", "argv", "code", "said"),
    [
        ("body\nthe cat\n", (), 3, "new.csv:2: no field 'text', but body"),
        (BAD, (), 3, "new.csv:3: 3 fields instead of 2 (text, n)"),
        (BAD, ("--max_bad=1", "--overlong=error"), 3, "new.csv:4: 66 tokens"),
        ("text\n", (), 3, "new.csv has no rows"),
        ("text\nthe cat\n", ("--input=none.csv",), 3, "none.csv does not exist"),
        ("text\nthe cat\n", ("--to=.", "--input=."), 2, "lies in the input"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(run, tmp_path, text, argv, code, said):
    (tmp_path / "new.csv").write_text(text)
    found, _, err = run("--input=new.csv", *argv)
    assert found == code
    assert said in err
    assert not list(tmp_path.glob("out/*.parquet"))


def test_other_rows_do_not_join_those_that_are_there(run, tmp_path):
    (tmp_path / "new.csv").write_text("text\nthe cat\n")
    assert run("--input=new.csv")[0] == 0
    (tmp_path / "new.csv").write_text("text\na mat\n")
    code, _, err = run("--input=new.csv")
    assert code == 2
    assert "holds something else" in err


def test_a_file_of_the_output_that_was_removed_is_answered_again(run, tmp_path):
    (tmp_path / "new.csv").write_text("text\nthe cat\na mat\n")
    assert run("--input=new.csv", "--shard_rows=1")[0] == 0
    first, second = sorted((tmp_path / "out").glob("*.parquet"))
    kept, first_bytes = second.stat().st_mtime_ns, first.read_bytes()
    first.unlink()
    assert run("--input=new.csv", "--shard_rows=1")[0] == 0
    assert (first.read_bytes(), second.stat().st_mtime_ns) == (first_bytes, kept)


def test_a_model_that_was_not_fine_tuned_or_otherwise_is_refused(run, tmp_path, tiny_tokenizer):
    plain = asked.model_folder(tmp_path / "plain", tiny_tokenizer)
    (tmp_path / "new.csv").write_text("text\nthe cat\n")
    code, _, err = run("--input=new.csv", model=plain)
    assert (code, "plain was not fine-tuned" in err) == (2, True)
    place = Path(asked.teach(plain, WORDS), "task.json")
    place.write_text(place.read_text().replace('"version": 1', '"version": 0'))
    code, _, err = run("--input=new.csv", model=plain)
    assert (code, "fine-tuned with other version" in err) == (2, True)
