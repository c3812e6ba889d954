"""Selection of a busy corpus: balanced, the same in any order, completed where it was left, made once."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.runners import one_by_one
from helpers.selections import exam, left, prose, select, units_of

from pipelines.corpus import ledger
from pipelines.corpus.records import Unit, buckets_of
from pipelines.corpus.units import read_units
from pipelines.document import document_id
from pipelines.selection import near_duplicates
from pipelines.selection.config import EvaluationSet
from pipelines.selection.dropped import drop_files, read_kept
from pipelines.selection.per_unit import UnitJob
from pipelines.selection.select import JudgeJob, Selected
from pipelines.selection.shingles import normalise


@pytest.fixture(scope="module")
def busy(tmp_path_factory) -> Path:
    """A corpus with everything in it: the folder of its cleaned units."""
    folder = tmp_path_factory.mktemp("busy")
    texts = [prose(number, 20 + number) for number in range(120)]
    rng = np.random.default_rng(0)
    again = [texts[i] for i in rng.integers(0, 120, 30)]
    alike = [texts[i] + f" {i} more." for i in rng.integers(40, 120, 30)]
    units_of(
        folder,
        a=[texts[:50], texts[50:90] + again[:10] + ["..."]],
        b=[texts[90:] + alike[:20], again[10:] + alike[20:] + [""]],
    )
    exam(folder, texts[3], texts[77], prose(1000), texts[100][-150:])
    return folder


def busy_units(folder: Path) -> list[Unit]:
    return [unit for (unit,) in read_units([f"{folder}/text/{name}" for name in ("a-0", "a-1", "b-0", "b-1")])]


def select_busy(folder: Path, here: Path, **changes) -> Selected:
    """Select from the busy corpus, of which `here` has a copy."""
    sets = [EvaluationSet("jsonl", str(folder / "exam.jsonl"), name="exam")]
    doomed = document_id("a", "0.jsonl", 0).hex()
    settings = {"duplicates": "near", "exclude": [doomed], "similarity": 0.7, "decontaminate": sets, **changes}
    return select(here, busy_units(folder), raw=folder / "raw", **settings)


@pytest.fixture(scope="module")
def done(busy, tmp_path_factory) -> tuple[Path, Selected]:
    """The finished selection of the busy corpus: its folder and the outcome."""
    folder = tmp_path_factory.mktemp("done")
    shutil.copytree(busy / "text", folder / "text")
    return folder, select_busy(busy, folder)


@pytest.fixture
def copy(done, tmp_path) -> Path:
    """A copy of the finished selection."""
    return Path(shutil.copytree(done[0], tmp_path / "copy"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_every_document_is_accounted_for(busy, done):
    folder, selected = done
    units = busy_units(busy)
    balance = ledger.balance(selected.units)
    read = sum(unit.read for unit in units)
    assert balance.documents.read == read == 186
    reasons = {reason for source in balance.sources for reason in source.dropped}
    assert reasons == {"malformed_json", "excluded", "contaminated", "duplicate", "near_duplicate"}
    ledgers = [f"{folder}/text/{unit.path}.ledger.parquet" for unit in units]
    listed = ledger.join_ledgers([*ledgers, *drop_files(f"{folder}/selected")], f"{folder}.parquet")
    gone = pq.read_table(f"{folder}.parquet")["id"].to_pylist()
    assert listed == balance.documents.dropped == len(set(gone))
    tables = [read_kept(selected.text, place.unit, place.bucket, ["id"]) for place in buckets_of(selected.units)]
    kept = [identity for table in tables for identity in table["id"].to_pylist()]
    assert len(kept) == len(set(kept)) == balance.documents.kept
    assert not set(kept) & set(gone)
    assert len(kept) + len(gone) == read


def test_no_near_duplicates_are_left_to_straddle_splits(done):
    """No two kept documents are as similar as the setting says, by their whole signatures."""
    texts = sorted(one for one in left(done[1]) if normalise(one))
    found = near_duplicates.signatures(texts).astype(np.uint8)
    alike = [near_duplicates.similarity(found, np.roll(found, shift, axis=0)).max() for shift in range(1, len(texts))]
    assert max(alike) < 0.7


@pytest.fixture
def tasks_of_one(monkeypatch):
    """A task for each number of buckets, as in a large corpus; `done` has one for all."""
    monkeypatch.setattr("pipelines.selection.select._TASK_DOCUMENTS", 0)


@pytest.mark.usefixtures("tasks_of_one")
def test_the_order_of_the_tasks_is_invisible(busy, done, tmp_path):
    shutil.copytree(busy / "text", tmp_path / "text")
    again = select_busy(busy, tmp_path, runner=one_by_one(lambda items: items[1::2] + items[::2]))
    assert (again.units, again.contamination) == (done[1].units, done[1].contamination)
    assert files_of(tmp_path) == files_of(done[0])


def test_a_selection_is_made_once(busy, done, copy):
    ran = []
    assert select_busy(busy, copy, runner=one_by_one(ran=ran)).units == done[1].units
    assert ran == []


@pytest.mark.usefixtures("tasks_of_one")
def test_a_selection_is_completed_where_it_was_left(busy, done, copy):
    unit = busy_units(busy)[1].path
    (signatures,) = (copy / "text").glob(f"near-*/{unit}.parquet")
    (matches,) = (copy / "text").glob(f"contaminated-*/{unit}.parquet")
    made = [copy / "selected" / name for name in ("first-03.parquet", "links-05.parquet")]
    lost = [
        signatures,
        matches,
        *made,
        *(copy / "selected" / name for name in ("record.json", "contamination.parquet")),
    ]
    for path in [*lost, *(copy / "selected").glob("near-*")]:
        path.unlink()
    ran = []
    assert select_busy(busy, copy, runner=one_by_one(ran=ran)).units == done[1].units
    assert files_of(copy) == files_of(done[0])
    match, judge, sign, band = ran
    assert (match, sign) == (UnitJob(unit, str(matches)), UnitJob(unit, str(signatures)))
    assert (judge.out, band) == (str(made[0]), 5)


@pytest.mark.usefixtures("tasks_of_one")
def test_another_selection_signs_and_matches_no_text_again(busy, copy):
    ran = []
    select_busy(busy, copy, exclude=["0.jsonl"], out="other", runner=one_by_one(ran=ran))
    assert {type(item) for item in ran} == {JudgeJob, int}


def test_only_new_units_are_signed_and_matched(tmp_path):
    settings = {"duplicates": "near", "decontaminate": exam(tmp_path, prose(1))}
    files = [[prose(0), prose(1)], [prose(2), prose(3)]]
    select(tmp_path, units_of(tmp_path, s=files), **settings)
    more, ran = units_of(tmp_path, s=[*files, [prose(0) + " More."]]), []
    selected = select(tmp_path, more, out="more", runner=one_by_one(ran=ran), **settings)
    assert left(selected) == {prose(0), prose(2), prose(3)}
    assert [item.unit for item in ran if isinstance(item, UnitJob)] == ["s-2", "s-2"]
