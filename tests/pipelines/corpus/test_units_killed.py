"""Large files make several units of the same documents, also after a kill; the texts of a unit, a few at a time."""

import json
from collections import Counter

import pytest
from helpers import small
from helpers.cleaned import jsonl, kept, ledger, lines

from infra import storage
from pipelines.corpus import units as units_module
from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.sources import InputFile
from pipelines.corpus.units import clean_files, read_texts, read_units


def large_file(folder) -> list[InputFile]:
    """Documents, broken lines and short texts in turn."""
    texts = small.documents(60)
    mixed = [line for i, text in enumerate(lines(texts)) for line in ([text, "{broken"] if i % 7 == 0 else [text])]
    return jsonl(folder / "raw", [*mixed, json.dumps({"text": "short"})])


def test_a_large_file_makes_several_units_of_the_same_documents(tmp_path):
    files = large_file(tmp_path)
    whole = small.clean_unit(files, CleanConfig(), f"{tmp_path}/whole/unit")
    units = clean_files(files, CleanConfig(), f"{tmp_path}/parts/unit", unit_bytes=2000)
    assert len(units) > 3
    assert [unit.path for unit in units] == ["unit", *(f"unit-{i}" for i in range(1, len(units)))]
    assert sorted(f.name for f in (tmp_path / "parts").iterdir()) == sorted(
        ["unit.json", *(unit.path + ending for unit in units for ending in (".parquet", ".ledger.parquet"))]
    )
    assert read_units([f"{tmp_path}/parts/unit"]) == [units]

    by_id = lambda rows: sorted(rows, key=lambda row: row["id"])  # noqa: E731
    parts = [f"{tmp_path}/parts/{unit.path}" for unit in units]
    assert by_id(row for part in parts for row in kept(part)) == by_id(kept(tmp_path / "whole" / "unit"))
    assert by_id(row for part in parts for row in ledger(part)) == by_id(ledger(tmp_path / "whole" / "unit"))
    for name in ("read", "kept", "num_bytes"):
        assert sum(getattr(unit, name) for unit in units) == getattr(whole, name)
    for name in ("dropped", "malformed"):
        sums = sum((Counter(getattr(unit, name)) for unit in units), Counter())
        assert sums == getattr(whole, name)
    assert whole.dropped == {"malformed_json": 9, "too_short": 1}
    longest = 300 + max(row["num_bytes"] for row in kept(tmp_path / "whole" / "unit"))
    weights = [unit.num_bytes + 300 * unit.read for unit in units[:-1]]  # 300 bytes a record, kept or not
    assert all(2000 <= weight < 2000 + longest for weight in weights), "a unit ends where it is full"
    for unit, part in zip(units, parts, strict=True):
        keys = [row["key"] for row in kept(part)]
        assert keys == sorted(keys)
        assert (unit.kept, unit.read) == (len(keys), len(keys) + len(ledger(part)))


def test_a_unit_that_is_just_full_is_the_only_one(tmp_path):
    files = jsonl(tmp_path / "raw", lines(small.documents(10)))
    size = small.clean_unit(files, CleanConfig(), f"{tmp_path}/whole").num_bytes + 300 * 10
    counts = [len(clean_files(files, CleanConfig(), f"{tmp_path}/u{b}", unit_bytes=b)) for b in (size, size - 1, 1)]
    assert counts == [1, 1, 10]
    first = len(small.documents(10)[0].encode())
    unit, *_ = clean_files(files, CleanConfig(), f"{tmp_path}/first", unit_bytes=first)
    assert (unit.kept, unit.num_bytes) == (1, first)


def test_records_that_are_dropped_fill_a_unit_too(tmp_path):
    """A large file with a wrong field name must end in an error, not in a task that is killed for its memory."""
    files = jsonl(tmp_path, ['{"body": "x"}'] * 100)
    units = clean_files(files, CleanConfig(), f"{tmp_path}/unit", unit_bytes=3000)
    assert [unit.read for unit in units] == [10] * 10


@pytest.mark.parametrize("writes", [0, 1, 3, 4])
def test_a_task_that_was_killed_between_its_units_makes_them_again_as_they_were(tmp_path, monkeypatch, writes):
    files = large_file(tmp_path)
    expected = clean_files(files, CleanConfig(), f"{tmp_path}/a/unit", unit_bytes=2000)
    write, left = storage.write_bytes, writes

    def write_and_die(url, data):
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        write(url, data)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_bytes", write_and_die)
        with pytest.raises(KeyboardInterrupt):
            clean_files(files, CleanConfig(), f"{tmp_path}/b/unit", unit_bytes=2000)
    assert not (tmp_path / "b" / "unit.json").exists(), "the records, which later stages trust, are written last"
    assert clean_files(files, CleanConfig(), f"{tmp_path}/b/unit", unit_bytes=2000) == expected
    a, b = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in "ab")
    assert a == b


def test_texts_are_read_in_order_a_few_at_a_time(tmp_path, monkeypatch):
    small.clean_unit(jsonl(tmp_path, lines(small.documents(80))), CleanConfig(), f"{tmp_path}/unit")
    monkeypatch.setattr(units_module, "_BATCH_BYTES", 1000)
    batches = list(read_texts(str(tmp_path), "unit"))
    assert [one for batch in batches for one in batch] == [row["text"] for row in kept(tmp_path / "unit")]
    sizes = [sum(len(one.encode()) for one in batch) for batch in batches]
    assert len(batches) > 5
    assert all(1000 <= size < 1500 for size in sizes[:-1])
