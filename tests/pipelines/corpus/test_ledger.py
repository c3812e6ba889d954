"""The ledger (law 11): every document that was dropped, with its reason, and sums that leave none out."""

import json
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from helpers import small

from infra.errors import DataError
from pipelines.corpus import ledger
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.ledger import Balance, DocumentCounts, SourceBalance
from pipelines.corpus.records import Unit
from pipelines.corpus.sources import InputFile, Source, list_inputs
from pipelines.document import NOT_MALFORMED


def unit(source: str, kept: int, dropped: dict[str, int], repaired: dict[str, int] | None = None) -> Unit:
    read, num_bytes = kept + sum(dropped.values()), 10 * kept
    return small.unit(source, read=read, kept=kept, num_bytes=num_bytes, dropped=dropped, repaired=repaired or {})


def test_ledgers_are_joined_in_order(tmp_path):
    rows = [ledger.Entry(bytes([i]) * 16, "source", f"/in/{i}", i, "too_short", "") for i in range(5)]
    ledger.write_ledger(f"{tmp_path}/a.parquet", rows[2:4])
    ledger.write_ledger(f"{tmp_path}/b.parquet", [])
    ledger.write_ledger(f"{tmp_path}/c.parquet", rows[:2])
    urls = [f"{tmp_path}/{name}.parquet" for name in "abc"]
    assert ledger.join_ledgers(urls, f"{tmp_path}/all.parquet") == 4
    table = pq.read_table(f"{tmp_path}/all.parquet")
    assert table.schema.equals(ledger.SCHEMA)
    assert table["uri"].to_pylist() == ["/in/2", "/in/3", "/in/0", "/in/1"]


def test_the_balance_of_several_units():
    units = [
        unit("a", 5, {"too_short": 2}, {"nfc": 1, "utf8": 3}),
        unit("b", 7, {}),
        unit("a", 0, {"too_short": 1, "empty_file": 4}, {"nfc": 1}),
    ]
    assert ledger.balance(units) == Balance(
        sources=(
            SourceBalance(
                name="a",
                read=12,
                kept=5,
                num_bytes=50,
                dropped={"empty_file": 4, "too_short": 3},
                lost={},
                stored_bytes=0,
                repaired={"nfc": 2, "utf8": 3},
            ),
            SourceBalance(name="b", read=7, kept=7, num_bytes=70, dropped={}, lost={}, stored_bytes=0, repaired={}),
        ),
        documents=DocumentCounts(read=19, kept=12, dropped=7),
    )


def test_a_document_that_is_neither_kept_nor_dropped_is_noticed():
    with pytest.raises(AssertionError, match="8 documents read, 5 kept and 2 dropped"):
        ledger.balance([replace(unit("a", 5, {"too_short": 2}), read=8)])


def cleaned(folder, name: str, lines: list[dict]) -> Unit:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = list_inputs([Source("jsonl", str(folder / f"{name}.jsonl"), name=name, options={"field": "txt"})])
    return small.clean_unit(files, CleanConfig(), f"{folder}/text/{name}")


def test_a_source_of_which_nothing_is_kept_says_why(tmp_path):
    short = [{"id": 1}, *({"txt": "short"} for _ in range(1200))]
    good = cleaned(tmp_path, "good", [{"txt": text} for text in small.documents(3)])
    units = [good, cleaned(tmp_path, "bad", short)]
    with pytest.raises(DataError) as error:
        ledger.check_kept(units, f"{tmp_path}/text")
    message = str(error.value)
    assert "the source 'bad' is empty: of 1,201 documents none was kept" in message
    assert "too_short 1,200, missing_field 1" in message
    assert f"the first too_short: {tmp_path}/bad.jsonl at byte 10\n" in message
    assert "keep shorter texts: --data.clean.min_characters=1" in message
    ledger.check_kept(units[:1], f"{tmp_path}/text")


def test_a_wrong_field_name_shows_the_fields(tmp_path):
    lines = [{"id": i, "text": text} for i, text in enumerate(small.documents(5))]
    with pytest.raises(DataError) as error:
        ledger.check_kept([cleaned(tmp_path, "corpus", lines)], f"{tmp_path}/text")
    message = str(error.value)
    assert "missing_field 5" in message
    assert "corpus.jsonl at byte 0: no 'txt', but id, text" in message
    assert "options: {field: ...}" in message


def damaged(folder, name: str, good: int, bad: int, **changes) -> Unit:
    """A unit of so many good lines, behind so many broken ones."""
    folder.mkdir(exist_ok=True)
    lines = ["{broken\n"] * bad + [json.dumps({"text": text}) + "\n" for text in small.documents(good)]
    (folder / f"{name}.jsonl").write_text("".join(lines))
    files = list_inputs([Source("jsonl", str(folder / f"{name}.jsonl"), name="corpus")])
    return replace(small.clean_unit(files, CleanConfig(preset="off"), f"{folder}/text/{name}"), **changes)


def test_more_malformed_records_than_the_limit_are_refused_with_examples(tmp_path):
    units = [damaged(tmp_path, "a", 97, 3), damaged(tmp_path, "b", 98, 2)]
    with pytest.raises(DataError) as error:
        ledger.check_malformed(units, f"{tmp_path}/text", limit=0.024)
    message = str(error.value)
    assert (
        "the source 'corpus' is damaged: 5 of 200 records are malformed, more than data.max_malformed=0.024" in message
    )
    for line in range(3):
        assert f"{tmp_path}/a.jsonl at byte {8 * line}: malformed_json, " in message
    assert "b.jsonl" not in message, "three examples are enough"
    assert "--data.max_malformed=1" in message


def test_malformed_records_up_to_the_limit_pass(tmp_path):
    units = [damaged(tmp_path, "a", 97, 3), damaged(tmp_path, "b", 100, 0)]
    ledger.check_malformed(units, f"{tmp_path}/text", limit=0.015)
    ledger.check_malformed([units[1]], f"{tmp_path}/text", limit=0)
    ledger.check_malformed([damaged(tmp_path, "c", 1, 9)], f"{tmp_path}/text", limit=1)


def test_the_malformed_are_counted_by_source(tmp_path):
    units = [damaged(tmp_path, "a", 99, 1), damaged(tmp_path, "b", 8, 2, source="small")]
    with pytest.raises(DataError, match=r"the source 'small' is damaged: 2 of 10"):
        ledger.check_malformed(units, f"{tmp_path}/text", limit=0.05)


def test_whole_files_and_records_left_out_on_purpose_are_not_malformed(tmp_path):
    """Nor are documents that cleaning drops: they are well-formed. The bytes of files that were not read are lost."""
    contents = {
        "text": {"a": "", "b": "\0binary", "c": "short", "d": "A text that is long enough."},
        "pydocs": {"a": "x = 1", "b": "def broken(:"},
    }
    units = []
    for reader, files in contents.items():
        (tmp_path / reader).mkdir()
        inputs = []
        for name, content in files.items():
            path = tmp_path / reader / f"{name}.py"
            path.write_text(content)
            inputs.append(InputFile(0, reader, reader, {}, str(path), path.name, len(content), "1"))
        units.append(small.clean_unit(inputs, CleanConfig(), f"{tmp_path}/cleaned/{reader}"))
    assert [unit.dropped for unit in units] == [
        {"binary_file": 1, "empty_file": 1, "too_short": 1},
        {"no_documentation": 1, "syntax_error": 1},
    ]
    assert [unit.malformed for unit in units] == [{}, {}]
    assert [unit.lost for unit in units] == [{"binary_file": 7}, {}]
    ledger.check_malformed(units[1:], f"{tmp_path}/cleaned", limit=0)


def test_pages_that_a_wiki_has_besides_articles_are_not_malformed():
    assert {"redirect", "namespace", "not_wikitext", "no_text"} <= NOT_MALFORMED
    assert not {"malformed_json", "not_utf8", "missing_field", "not_text", "page_too_long"} & NOT_MALFORMED
