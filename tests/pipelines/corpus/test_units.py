"""Cleaning a unit (law 11): every document kept or dropped with a reason, ordered by content, the same on every run."""

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import small
from helpers.cleaned import jsonl, kept, ledger, lines

from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.records import BUCKETS, bucket_number, bucket_start
from pipelines.corpus.sources import InputFile, Source, list_inputs
from pipelines.corpus.units import read_bucket, read_units
from pipelines.document import content_key, document_id

LEDGER = ["id", "source", "uri", "offset", "reason", "detail", "lost"]


def test_a_unit_keeps_drops_and_repairs(tmp_path):
    good, second = "A text of more than twenty characters.", "Ein schöner Text \u3000mit mehr als zwanzig Zeichen."
    corpus = [
        json.dumps({"text": good}),
        json.dumps({"text": "too short"}),
        "{broken",
        json.dumps({"text": 7}),
        json.dumps({"text": second + "  \n"}),
    ]
    files = jsonl(tmp_path, corpus)
    out = str(tmp_path / "unit")
    unit = small.clean_unit(files, CleanConfig(), out)

    starts = np.cumsum([0, *(len(line.encode()) + 1 for line in corpus)]).tolist()
    expected = [(0, good), (4, second + "\n")]
    documents = [
        {
            "id": document_id("corpus", "corpus.jsonl", starts[line]),
            "key": content_key(text),
            "path": "corpus.jsonl",
            "offset": starts[line],
            "num_bytes": len(text.encode()),
            "text": text,
        }
        for line, text in expected
    ]
    documents.sort(key=lambda d: d["key"])
    assert kept(out) == documents

    url = files[0].url
    dropped = ledger(out)
    assert [list(row) for row in dropped] == [LEDGER] * 3
    found = {row["offset"]: (row["reason"], row["source"], row["uri"], row["id"]) for row in dropped}
    assert found == {
        starts[line]: (reason, "corpus", url, document_id("corpus", "corpus.jsonl", starts[line]))
        for line, reason in ((1, "too_short"), (2, "malformed_json"), (3, "not_text"))
    }
    assert [row["id"] for row in dropped] == sorted(row["id"] for row in dropped)

    assert read_units([out]) == [[unit]]
    (record,) = json.loads((tmp_path / "unit.json").read_text())
    assert record == {
        "source": "corpus",
        "around": [url.removesuffix("corpus.jsonl"), ""],
        "path": "unit",
        "read": 5,
        "kept": 2,
        "dropped": {"malformed_json": 1, "not_text": 1, "too_short": 1},
        "malformed": {"malformed_json": 1, "not_text": 1},
        "lost": {"malformed_json": starts[3] - starts[2], "not_text": starts[4] - starts[3]},
        "repaired": {"trailing_space": 1},
        "sampled": 3,
        "marks": {},
        "holes": {},
        "num_bytes": sum(d["num_bytes"] for d in documents),
        "stored_bytes": files[0].size,
        "pieces": [
            {"piece": bucket_number(d["key"]), "group": group, "documents": 1, "num_bytes": d["num_bytes"]}
            for group, d in enumerate(documents)
        ],
        "digest": unit.digest,
    }


@pytest.mark.parametrize("preset", ["off", "light", "strict"])
def test_every_document_is_accounted_for(tmp_path, preset):
    texts = [
        *small.documents(100),
        "short",
        "",
        "same line\n" * 50,
        "!!! ??? ### $$$ %%% &&& *** ((( )))",
        "\x00\x01 " * 20,
    ]
    files = jsonl(tmp_path, [*lines(texts), "[1]", b"\xff\xfe\xff not utf-8 \xff\xff", json.dumps({"other": 1})])
    unit = small.clean_unit(files, CleanConfig(preset=preset), str(tmp_path / "unit"))
    assert unit.read == len(texts) + 3
    assert unit.kept + sum(unit.dropped.values()) == unit.read
    assert (len(kept(tmp_path / "unit")), len(ledger(tmp_path / "unit"))) == (
        unit.kept,
        sum(unit.dropped.values()),
    )
    assert all(row["reason"] for row in ledger(tmp_path / "unit"))
    identities = [row["id"] for row in kept(tmp_path / "unit") + ledger(tmp_path / "unit")]
    assert len(set(identities)) == unit.read, "kept and dropped documents are told apart"
    assert {"malformed_json", "not_utf8", "not_an_object", "missing_field"} & set(unit.dropped)
    assert ("too_short" in unit.dropped) == (preset != "off")


def test_documents_are_ordered_by_key_in_buckets_of_equal_ranges(tmp_path):
    unit = small.clean_unit(jsonl(tmp_path, lines(small.documents(300))), CleanConfig(), str(tmp_path / "unit"))
    rows = kept(tmp_path / "unit")
    keys = [row["key"] for row in rows]
    assert keys == sorted(keys)
    assert [bucket.number for bucket in unit.buckets] == list(range(BUCKETS))
    assert [bucket.group for bucket in unit.buckets] == list(range(BUCKETS))
    assert sum(bucket.documents for bucket in unit.buckets) == 300
    for bucket in unit.buckets:
        table = read_bucket(str(tmp_path), "unit", bucket, ["key", "num_bytes"])
        assert {bucket_number(key) for key in table["key"].to_pylist()} == {bucket.number}
        assert (len(table), sum(table["num_bytes"].to_pylist())) == (bucket.documents, bucket.num_bytes)


def test_equal_texts_of_different_units_fall_into_the_same_bucket(tmp_path):
    text = "The same text in two places of the corpus, give or take"
    units = [
        small.clean_unit(jsonl(tmp_path / name, lines([t]), name), CleanConfig(), str(tmp_path / name / "unit"))
        for name, t in (("a", f"{text} a space."), ("b", f"{text}  a\nspace. "))
    ]
    assert units[0].buckets[0].number == units[1].buckets[0].number
    keys = [pq.read_table(tmp_path / name / "unit.parquet")["key"].to_pylist() for name in "ab"]
    assert keys[0] == keys[1]


def test_edges_of_buckets():
    step = (1 << 64) // BUCKETS
    assert [bucket_number(key) for key in (0, step - 1, step, (1 << 64) - 1)] == [0, 0, 1, BUCKETS - 1]
    assert [bucket_start(number) for number in (0, 1, BUCKETS)] == [0, step, 1 << 64]


def test_a_unit_is_a_function_of_its_inputs(tmp_path):
    corpus = [*lines(small.documents(50)), "{broken", json.dumps({"text": "short"})]
    outs = [tmp_path / "a" / "unit", tmp_path / "b" / "unit"]
    units = [small.clean_unit(jsonl(tmp_path / "raw", corpus), CleanConfig(), str(out)) for out in outs]
    assert units[0] == units[1]
    for ending in (".parquet", ".ledger.parquet", ".json"):
        assert outs[0].with_suffix(ending).read_bytes() == outs[1].with_suffix(ending).read_bytes()
    moved = small.clean_unit(jsonl(tmp_path / "elsewhere", corpus), CleanConfig(), str(tmp_path / "c"))
    assert moved.digest == units[0].digest, "the corpus may lie in another folder"


def test_the_digest_covers_kept_and_dropped(tmp_path):
    base = [*lines(small.documents(5)), "{broken"]
    changed = [
        base,
        base[:-1],
        [*base[:-1], json.dumps({"text": "short"})],
        [*base[1:-1], base[0], "{broken"],  # other offsets: other identities
        [base[0].replace("dog", "cat"), *base[1:]],
    ]
    digests = [
        small.clean_unit(jsonl(tmp_path / str(i), corpus), CleanConfig(), str(tmp_path / f"u{i}")).digest
        for i, corpus in enumerate(changed)
    ]
    assert len(set(digests)) == len(changed)


def test_a_change_of_white_space_is_a_change(tmp_path):
    units = [
        small.clean_unit(jsonl(tmp_path / name, lines([text])), CleanConfig(), str(tmp_path / name / "unit"))
        for name, text in (("a", "One line of text,\nand another one."), ("b", "One line of text, and another one."))
    ]
    assert units[0].digest != units[1].digest
    assert units[0].num_bytes == units[1].num_bytes


def test_a_unit_of_several_text_files(tmp_path):
    for name, content in (
        ("b.txt", "The second file holds this one text."),
        ("a.txt", "The first file holds this text."),
        ("c.txt", ""),
    ):
        (tmp_path / "raw" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "raw" / name).write_text(content)
    files = list_inputs([Source("text", str(tmp_path / "raw"))])
    unit = small.clean_unit(files, CleanConfig(), str(tmp_path / "unit"))
    assert {(row["path"], row["offset"], row["text"]) for row in kept(tmp_path / "unit")} == {
        ("a.txt", 0, "The first file holds this text."),
        ("b.txt", 0, "The second file holds this one text."),
    }
    assert (unit.source, unit.read, unit.dropped) == ("raw", 3, {"empty_file": 1})
    (dropped,) = ledger(tmp_path / "unit")
    assert dropped["uri"] == files[2].url


def test_a_unit_that_keeps_nothing(tmp_path):
    unit = small.clean_unit(jsonl(tmp_path, lines(["a", "b"])), CleanConfig(), str(tmp_path / "unit"))
    assert (unit.read, unit.kept, unit.buckets) == (2, 0, ())
    assert kept(tmp_path / "unit") == []
    assert len(ledger(tmp_path / "unit")) == 2


def test_a_unit_that_drops_nothing_has_an_empty_ledger(tmp_path):
    small.clean_unit(jsonl(tmp_path, lines(small.documents(3))), CleanConfig(), str(tmp_path / "unit"))
    table = pq.read_table(tmp_path / "unit.ledger.parquet")
    assert (table.column_names, len(table)) == (LEDGER, 0)


HALF = "half a pair \\ud83d in a text of this length"


@pytest.mark.parametrize(
    ("reader", "options", "content"),
    [("jsonl", {}, f'{{"text": "{HALF}"}}\n'), ("pydocs", {"prose": False}, f'"""{HALF * 8}"""\n')],
)
@pytest.mark.parametrize("preset", ["off", "light"])
def test_half_a_surrogate_pair_does_not_stop_the_unit(tmp_path, reader, options, content, preset):
    (tmp_path / "a.py").write_text(content)
    files = [InputFile(0, "s", reader, options, str(tmp_path / "a.py"), "a.py", len(content), "1")]
    unit = small.clean_unit(files, CleanConfig(preset=preset), str(tmp_path / "unit"))
    assert (unit.kept, unit.repaired) == (1, {"utf8": 1})
    assert kept(tmp_path / "unit")[0]["text"].startswith("half a pair \ufffd in a text of this length")


def test_names_of_files_need_not_be_utf8(tmp_path):
    for name, content in ((b"a\xff.txt", "A text of more than twenty characters."), (b"b\xff.txt", "short")):
        (tmp_path / os.fsdecode(name)).write_text(content)
    unit = small.clean_unit(list_inputs([Source("text", str(tmp_path))]), CleanConfig(), str(tmp_path / "out" / "unit"))
    assert (unit.kept, unit.dropped) == (1, {"too_short": 1})
    assert kept(tmp_path / "out" / "unit")[0]["path"] == "a\ufffd.txt"
    assert ledger(tmp_path / "out" / "unit")[0]["uri"] == f"{tmp_path}/b\ufffd.txt"


def test_a_file_of_another_kind_among_the_shards_does_not_stop_the_unit(tmp_path):
    (tmp_path / "dataset_infos.json").write_text('{"splits": 1, "license": "\\ud83d"}')
    (tmp_path / "shard.jsonl").write_text("\n".join(lines(small.documents(5))))
    unit = small.clean_unit(
        list_inputs([Source("jsonl", str(tmp_path))]), CleanConfig(), str(tmp_path / "out" / "unit")
    )
    assert (unit.kept, unit.dropped) == (5, {"missing_field": 1})
    assert ledger(tmp_path / "out" / "unit")[0]["detail"] == "no 'text', but license, splits"


def test_real_wikipedia(shared, tmp_path):
    path = shared / "data" / "corpora" / "enwiki_wikiextractor" / "AA" / "wiki_05.gz"
    if not path.exists():
        pytest.skip("shared/data/corpora/enwiki_wikiextractor is not there")
    unit = small.clean_unit(list_inputs([Source("wikiextractor", str(path))]), CleanConfig(), str(tmp_path / "unit"))
    rows = kept(tmp_path / "unit")
    assert unit.read == unit.kept + sum(unit.dropped.values()) > 50
    assert unit.kept == len(rows) > 0.5 * unit.read
    assert len({row["id"] for row in rows}) == len(rows)
