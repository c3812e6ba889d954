"""Splits: files by their names, or one file cut by what its rows hold."""

import pytest

from infra.errors import DataError, UserError
from pipelines.questions.rows import BadRow
from pipelines.questions.splits import SplitFile, find_splits, split_rows, splits_by_words

SHARES = {"train": 8.0, "dev": 1.0, "test": 1.0}


def test_files_are_found_by_their_names(tmp_path):
    for name in ("train.jsonl", "val.jsonl", "test.jsonl", "README.md"):
        (tmp_path / name).write_text("{}\n")
    found = find_splits(str(tmp_path), {}, SHARES)
    assert found == {
        "train": SplitFile(f"{tmp_path}/train.jsonl"),
        "dev": SplitFile(f"{tmp_path}/val.jsonl"),
        "test": SplitFile(f"{tmp_path}/test.jsonl"),
    }


def test_a_recipe_names_files(tmp_path):
    (tmp_path / "a.csv").write_text("x\n")
    found = find_splits(str(tmp_path), {"train": "a.csv", "test": f"{tmp_path}/a.csv"}, SHARES)
    assert found == {"train": SplitFile(f"{tmp_path}/a.csv"), "test": SplitFile(f"{tmp_path}/a.csv")}
    with pytest.raises(DataError, match=r"/b\.csv does not exist"):
        find_splits(str(tmp_path), {"train": "b.csv"}, SHARES)


@pytest.mark.parametrize("in_folder", [False, True])
def test_one_file_is_cut_by_content_into_exact_shares(tmp_path, in_folder):
    place = tmp_path / "reviews.csv"
    place.write_text("text,label\n" + "".join(f"text {n},{n % 2}\n" for n in range(1000)) + "bad\n")
    splits = find_splits(str(tmp_path if in_folder else place), {}, SHARES)
    parts = {name: list(split_rows(splits, name)) for name in splits}
    assert {name: len(rows) for name, rows in parts.items()} == {"train": 801, "dev": 100, "test": 100}
    assert [row.line for row in parts["train"] if isinstance(row, BadRow)] == [1002]
    lines = sorted(row.line for rows in parts.values() for row in rows)
    assert lines == list(range(2, 1003)), "each row is in one split"


def test_rows_of_equal_content_stay_together(tmp_path):
    place = tmp_path / "a.csv"
    place.write_text("text,label\n" + "".join(f"text {n % 50},{n % 2}\n" for n in range(1000)))
    splits = find_splits(str(place), {}, SHARES)
    texts = [{row.fields["text"] for row in split_rows(splits, name)} for name in splits]
    assert sum(map(len, texts)) == len(set.union(*texts)) == 50


def test_files_are_found_by_a_word_of_their_names_and_one_file_is_not_cut(tmp_path):
    for name in ("wiki.test.tokens", "wiki.valid.tokens", "a-validation.md", "dev.txt"):
        (tmp_path / name).write_text("x\n")

    def found(place: str, ending: str | tuple[str, ...] = ".tokens") -> dict[str, str]:
        return splits_by_words(place, lambda name: name.endswith(ending))

    expected = {split: f"{tmp_path}/wiki.{name}.tokens" for split, name in (("test", "test"), ("dev", "valid"))}
    assert found(str(tmp_path)) == expected
    assert found(expected["test"]) == {"test": expected["test"]}
    (tmp_path / "arc.jsonl").write_text("{}\n")
    for place in (tmp_path, tmp_path / "arc.jsonl"):
        assert found(str(place), ".jsonl") == {"dev": f"{tmp_path}/arc.jsonl"}
    with pytest.raises(DataError, match=r"holds no splits\n.*has the word train, dev \(or val\) or test"):
        found(str(tmp_path), ".csv")
    with pytest.raises(DataError, match=r"holds both a-validation\.md and dev\.txt"):
        found(str(tmp_path), ("md", "dev.txt"))
    with pytest.raises(DataError, match="/nowhere does not exist"):
        found(str(tmp_path / "nowhere"))


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match="/nowhere does not exist"):
        find_splits(str(tmp_path / "nowhere"), {}, SHARES)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x\n")
    with pytest.raises(DataError, match=r"holds no splits\n.*it has a\.csv, b\.csv"):
        find_splits(str(tmp_path), {}, SHARES)
    with pytest.raises(UserError, match=r"unknown split 'tests'; did you mean 'test'\?"):
        split_rows({"test": SplitFile("x")}, "tests")
