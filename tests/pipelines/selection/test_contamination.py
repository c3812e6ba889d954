"""Decontamination: every run of 50 bytes of an entry is found wherever it stands, and nothing else."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import small
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import DataError, UserError
from pipelines.corpus.clean import CleanConfig
from pipelines.selection.config import EvaluationSet
from pipelines.selection.contamination import Matched, check_unit, read_entries
from pipelines.selection.per_unit import UnitJob
from pipelines.selection.shingles import normalise
from pipelines.selection.window_index import MOST_ENTRIES, RUN_BYTES, find_shared, load_index, save_index

RNG = np.random.default_rng(0)


def random_text(size: int) -> str:
    return "".join(RNG.choice(list("abcdefghijklmnopqrstuvwxyz0123456789"), size))


def exam(folder, entries: list[dict], *, name: str = "exam.jsonl", **settings) -> EvaluationSet:
    (folder / name).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return EvaluationSet("jsonl", str(folder / name), **settings)


def pairs(documents: list[str], index) -> list[tuple[int, int]]:
    return list(zip(*(side.tolist() for side in find_shared(documents, index)), strict=True))


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """Entries of 43 to 400 bytes, and their index."""
    texts = [random_text(size) for size in (43, 49, 50, 51, 57, 58, 59, 200, 400)]
    folder = tmp_path_factory.mktemp("exam")
    return texts, read_entries([exam(folder, [{"text": text} for text in texts])]).index


@given(data=st.data(), before=st.text(max_size=80), after=st.text(max_size=80))
def test_every_run_is_found_wherever_it_stands(entries, data, before, after):
    texts, index = entries
    entry = data.draw(st.integers(2, len(texts) - 1))
    start = data.draw(st.integers(0, len(texts[entry]) - RUN_BYTES))
    run = texts[entry][start : start + RUN_BYTES]
    assert (1, entry) in pairs(["unrelated", before + run + after, run[:40]], index)


@given(data=st.data())
def test_a_run_is_found_in_another_layout_and_case(entries, data):
    texts, index = entries
    marks = data.draw(st.lists(st.sampled_from(["", " ", "\n", ", ", "\u201d", "-"]), min_size=200, max_size=200))
    words = "".join(letter + mark for letter, mark in zip(texts[7].upper(), marks, strict=True))
    assert pairs([words], index) == [(0, 7)]


@given(data=st.data())
def test_runs_below_43_bytes_are_not_found(entries, data):
    texts, index = entries
    entry = data.draw(st.integers(0, len(texts) - 1))
    start = data.draw(st.integers(0, len(texts[entry]) - 42))
    assert pairs(["\u00e4" + texts[entry][start : start + 42] + "\u00e4", "b" * 300], index) == []


def test_unrelated_text_is_not_found(entries):
    assert pairs([random_text(300_000), *small.documents(200), ""], entries[1]) == []


def test_documents_share_no_runs_with_their_neighbours(entries):
    text = entries[0][3]
    assert pairs([text[:25], text[25:], "", text], entries[1]) == [(3, 3)]


def test_a_document_names_each_entry_once_ascending(entries):
    texts, index = entries
    long = " ".join([texts[8], random_text(70_000), texts[2], texts[8], texts[4]])
    assert pairs([texts[5], long], index) == [(0, 5), (1, 2), (1, 4), (1, 8)]


def test_chinese(tmp_path):
    entry = (
        "\u5929\u5730\u7384\u9ec4\u5b87\u5b99\u6d2a\u8352\u65e5\u6708\u76c8\u6603\u8fb0\u5bbf\u5217\u5f20\u5bd2\u6765"
    )
    index = read_entries([exam(tmp_path, [{"text": entry}])]).index
    words = "\u4ed6\u5ff5\u9053\uff1a\u201c" + "\uff0c".join(entry[i : i + 4] for i in range(0, 18, 4)) + "\u3002\u201d"
    assert pairs([words, entry[:14], entry[::-1]], index) == [(0, 0)]


# --- reading the sets -------------------------------------------------------------------------------------------------


def test_several_fields_of_an_entry_are_one_entry(tmp_path):
    rows = [{"q": random_text(60), "a": "yes"}, {"q": "why", "a": "no"}, {"q": "who", "a": random_text(60)}]
    other = exam(tmp_path, [{"text": random_text(60)}], name="other.jsonl")
    found = read_entries([exam(tmp_path, rows, fields=["q", "a"], name="quiz.jsonl"), other])
    at = np.cumsum([0, *(len(json.dumps(row)) + 1 for row in rows)]).tolist()
    assert found.names == [
        *(("quiz.jsonl", "quiz.jsonl", offset) for offset in at[:3]),
        ("other.jsonl", "other.jsonl", 0),
    ]
    assert found.too_short == {"quiz.jsonl": 1, "other.jsonl": 0}
    assert pairs([rows[2]["a"], rows[0]["q"], "why no"], found.index) == [(0, 2), (1, 0)]


def test_entries_that_are_too_short_are_counted(tmp_path):
    texts = [random_text(42), random_text(43), "?" * 60, "..." + random_text(50)]
    found = read_entries([exam(tmp_path, [{"text": text} for text in texts])])
    assert found.too_short == {"exam.jsonl": 2}
    assert pairs(texts, found.index) == [(1, 1), (3, 3)]


def test_an_index_of_nothing_finds_nothing(tmp_path):
    found = read_entries([exam(tmp_path, [{"text": "short"}])])
    assert found.too_short == {"exam.jsonl": 1}
    assert pairs(["short", random_text(5000)], found.index) == []


@pytest.mark.parametrize(
    ("rows", "fields", "words"),
    [
        ([{"other": "x" * 60}], [], "has no entries with text"),
        ([{"text": " "}], [], "has no entries with text"),
        ([{"q": "x" * 60}], ["q", "anwser"], "no entries with text in the field 'anwser'"),
    ],
)
def test_a_set_without_text_is_refused(tmp_path, rows, fields, words):
    with pytest.raises(DataError, match=words):
        read_entries([exam(tmp_path, rows, fields=fields)])


def test_two_sets_of_one_name_are_refused(tmp_path):
    (tmp_path / "b").mkdir()
    sets = [exam(folder, [{"text": random_text(60)}], name="val.jsonl") for folder in (tmp_path, tmp_path / "b")]
    with pytest.raises(UserError, match=r"two evaluation sets are named 'val.jsonl'"):
        read_entries(sets)
    sets[1].name = "b"
    assert [name for name, _, _ in read_entries(sets).names] == ["val.jsonl", "b"]


def test_the_digest_is_of_entries_and_their_names(tmp_path):
    text, other = random_text(60), random_text(60)
    contents = [[text], [text], [text, "short"], [other]]
    for number in range(4):
        (tmp_path / str(number)).mkdir()
    sets = [exam(tmp_path / str(i), [{"text": one} for one in texts]) for i, texts in enumerate(contents)]
    sets.append(EvaluationSet("jsonl", sets[0].url, name="renamed"))
    digests = [read_entries([one]).digest for one in sets]
    assert digests[0] == digests[1], "the set may lie in another folder"
    assert len(set(digests[1:])) == 4


def test_a_phrase_of_all_entries_names_a_few(tmp_path):
    phrase = random_text(60)
    rows = [{"text": phrase + random_text(60)} for _ in range(100)]
    index = read_entries([exam(tmp_path, rows)]).index
    found = pairs([phrase, rows[70]["text"]], index)
    assert {document for document, _ in found} == {0, 1}
    assert len([entry for document, entry in found if document == 0]) <= 2 * MOST_ENTRIES
    assert (1, 70) in found


def test_an_index_is_stored_whole(tmp_path, entries):
    save_index(entries[1], f"{tmp_path}/index.parquet")
    again = load_index(f"{tmp_path}/index.parquet")
    assert all(np.array_equal(a, b) for a, b in zip(entries[1], again, strict=True))


def test_the_matches_of_a_unit_name_its_rows(tmp_path):
    texts = small.documents(40)
    unit = small.clean_unit(small.corpus(tmp_path / "raw", texts), CleanConfig(), f"{tmp_path}/text/unit")
    rows = pq.read_table(f"{tmp_path}/text/unit.parquet")["text"].to_pylist()
    chosen = [row for row, text in enumerate(rows) if len(normalise(text)) > 100][:3]
    found = read_entries([exam(tmp_path, [{"text": rows[row][5:]} for row in chosen])])
    save_index(found.index, f"{tmp_path}/index.parquet")
    job = UnitJob(unit.path, f"{tmp_path}/matches.parquet")
    assert check_unit(f"{tmp_path}/text", job, f"{tmp_path}/index.parquet") == Matched(documents=40, matches=3)
    assert pq.read_table(f"{tmp_path}/matches.parquet").to_pylist() == [
        {"row": row, "entry": entry} for entry, row in enumerate(chosen)
    ]
