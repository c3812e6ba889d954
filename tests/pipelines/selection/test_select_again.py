"""Selection of a busy corpus: balanced, the same in any order, completed where it was left, made once."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.selections import exam, left, one_by_one, prose, select, units_of

from infra import storage
from pipelines import stages
from pipelines.corpus import ledger
from pipelines.document import document_id
from pipelines.selection import dropped, near_duplicates
from pipelines.selection.contamination import EvaluationSet
from pipelines.selection.shingles import normalise

pytestmark = pytest.mark.usefixtures("ran")


@pytest.fixture(scope="module")
def busy(tmp_path_factory) -> Path:
    """A corpus with everything in it: the folder of its cleaned units."""
    folder = tmp_path_factory.mktemp("busy")
    texts = [prose(number, 20 + number) for number in range(120)]
    rng = np.random.default_rng(0)
    again = [texts[i] for i in rng.integers(0, 120, 30)]
    alike = [texts[i] + f" {i} more." for i in rng.integers(40, 120, 30)]
    units = units_of(
        folder,
        a=[texts[:50], texts[50:90] + again[:10] + ["..."]],
        b=[texts[90:] + alike[:20], again[10:] + alike[20:] + [""]],
    )
    storage.write_json(f"{folder}/units.json", units)
    exam(folder, texts[3], texts[77], prose(1000), texts[100][-150:])
    return folder


def select_busy(folder: Path, here: Path, **changes) -> list[dict]:
    """Select from the busy corpus, of which `here` has a copy."""
    sets = [EvaluationSet("jsonl", str(folder / "exam.jsonl"), name="exam")]
    doomed = document_id("a", "0.jsonl", 0).hex()
    settings = {"duplicates": "near", "exclude": [doomed], "similarity": 0.7, "decontaminate": sets, **changes}
    return select(here, storage.read_json(f"{folder}/units.json"), **settings)


@pytest.fixture(scope="module")
def done(busy, tmp_path_factory) -> tuple[Path, list[dict]]:
    """The finished selection of the busy corpus: its folder and the records."""
    folder = tmp_path_factory.mktemp("done")
    shutil.copytree(busy / "text", folder / "text")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "run_tasks", one_by_one())
        return folder, select_busy(busy, folder)


@pytest.fixture
def copy(done, tmp_path) -> Path:
    """A copy of the finished selection."""
    return Path(shutil.copytree(done[0], tmp_path / "copy"))


def without_place(units: list[dict]) -> list[dict]:
    return [{**unit, "selection": ""} for unit in units]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_every_document_is_accounted_for(busy, done):
    folder, selected = done
    units = storage.read_json(f"{busy}/units.json")
    balance = ledger.balance(selected)
    read = sum(unit["read"] for unit in units)
    assert balance["documents"]["read"] == read == 186
    reasons = {reason for source in balance["sources"] for reason in source["dropped"]}
    assert reasons == {"malformed_json", "excluded", "contaminated", "duplicate", "near_duplicate"}
    ledgers = [f"{folder}/text/{unit['path']}.ledger.parquet" for unit in units]
    listed = ledger.join_ledgers([*ledgers, *dropped.drop_files(f"{folder}/selected")], f"{folder}.parquet")
    gone = pq.read_table(f"{folder}.parquet")["id"].to_pylist()
    assert listed == balance["documents"]["dropped"] == len(set(gone))
    tables = [
        dropped.read_kept(f"{folder}/text", unit["path"], piece, unit["selection"], ["id"])["id"].to_pylist()
        for unit in selected
        for piece in unit["pieces"]
    ]
    kept = [identity for some in tables for identity in some]
    assert len(kept) == len(set(kept)) == balance["documents"]["kept"]
    assert not set(kept) & set(gone)
    assert len(kept) + len(gone) == read


def test_no_near_duplicates_are_left_to_straddle_splits(done):
    """Of the kept documents none are as similar as the setting says, by their whole signatures."""
    texts = sorted(one for one in left(*done) if normalise(one))
    found = near_duplicates.signatures(texts).astype(np.uint8)
    alike = [near_duplicates.similarity(found, np.roll(found, shift, axis=0)).max() for shift in range(1, len(texts))]
    assert max(alike) < 0.7


def test_the_order_of_the_tasks_is_invisible(busy, done, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "run_tasks", one_by_one(lambda items: items[1::2] + items[::2]))
    shutil.copytree(busy / "text", tmp_path / "text")
    assert without_place(select_busy(busy, tmp_path)) == without_place(done[1])
    assert files_of(tmp_path) == files_of(done[0])


def test_a_selection_is_made_once(busy, done, copy, ran):
    assert without_place(select_busy(busy, copy)) == without_place(done[1])
    assert ran == []


def test_a_selection_is_completed_where_it_was_left(busy, done, copy, ran):
    unit = storage.read_json(f"{busy}/units.json")[1]["path"]
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
    assert without_place(select_busy(busy, copy)) == without_place(done[1])
    assert files_of(copy) == files_of(done[0])
    assert [item.get("out", item.get("band")) for item in ran] == [str(matches), str(made[0]), str(signatures), 5]


def test_another_selection_signs_and_matches_no_text_again(busy, copy, ran):
    select_busy(busy, copy, exclude=["0.jsonl"], out="other")
    assert {Path(item["out"]).name[:6] if "out" in item else "band" for item in ran} == {"first-", "band"}


def test_only_new_units_are_signed_and_matched(tmp_path, ran):
    settings = {"duplicates": "near", "decontaminate": exam(tmp_path, prose(1))}
    files = [[prose(0), prose(1)], [prose(2), prose(3)]]
    select(tmp_path, units_of(tmp_path, s=files), **settings)
    ran.clear()
    more = units_of(tmp_path, s=[*files, [prose(0) + " More."]])
    selected = select(tmp_path, more, out="more", **settings)
    assert left(tmp_path, selected) == {prose(0), prose(2), prose(3)}
    assert [item["unit"]["path"] for item in ran if "unit" in item] == ["s-2", "s-2"]
