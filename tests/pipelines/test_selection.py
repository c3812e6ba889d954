"""Selection: what is excluded, contaminated or said before is left out, with a reason; all the rest is kept."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import small

from infra import storage
from infra.errors import DataError, UserError
from pipelines import dataflow, drops, ledger, near_duplicates, prepare, selection, text
from pipelines.blanks import BlanksConfig
from pipelines.clean import CleanConfig
from pipelines.data_config import DataConfig, TokenizerConfig
from pipelines.decontaminate import EvaluationSet
from pipelines.document import document_id
from pipelines.selection import SelectConfig
from pipelines.shingles import normalise
from pipelines.sources import Source, list_inputs

WORDS = [f"{a}{b}" for a, b in itertools.product(("ba", "ko", "shi", "tel", "run", "gra"), ("le", "mi", "ton", "sk"))]


def prose(number: int, words: int = 80) -> str:
    """A text of its own."""
    return " ".join(np.random.default_rng(number).choice(WORDS, words)) + "."


def one_by_one(order: Callable[[list], list] = list, ran: list | None = None) -> Callable[..., Iterator[dict]]:
    """`run_tasks` in this process; ran: collects the tasks' items."""

    def run(task, items):
        for item in order(items):
            if ran is not None:
                ran.append(item)
            yield json.loads(json.dumps(task(json.loads(json.dumps(item)))))

    return run


@pytest.fixture(autouse=True)
def ran(monkeypatch) -> list[dict]:
    """Items of the tasks that ran."""
    items: list[dict] = []
    monkeypatch.setattr(dataflow, "run_tasks", one_by_one(ran=items))
    return items


def units_of(folder: Path, **sources: list[list[str]]) -> list[dict]:
    """Cleaned units, one per file: source -> files -> texts. Files are named 0.jsonl, 1.jsonl and so on, and end with a
    line that is malformed.
    """
    units = []
    for name, files in sources.items():
        for number, texts in enumerate(files):
            path = folder / "raw" / name / f"{number}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps({"text": one}) + "\n" for one in texts) + "{broken")
        for file in list_inputs([Source("jsonl", str(folder / "raw" / name))]):
            out = f"{folder}/text/{name}-{file.path.removesuffix('.jsonl')}"
            units.append(small.clean_unit([file], CleanConfig(preset="off"), out))
    return units


def select(folder: Path, units: list[dict], *, out: str = "selected", **settings) -> list[dict]:
    plan = selection.resolve(SelectConfig(**settings), preset="off")
    return selection.select(
        plan, units, f"{folder}/text", f"{folder}/{out}", progress=lambda stage, records, n: records
    )


def left(folder: Path, units: list[dict]) -> set[str]:
    """Texts of the documents that are kept, by way of what later stages read."""
    tables = [
        drops.read_kept(f"{folder}/text", unit["path"], piece, unit.get("selection"), ["text", "num_bytes"])
        for unit in units
        for piece in unit["pieces"]
    ]
    sizes = [len(table) for table in tables]
    assert sizes == [piece["documents"] for unit in units for piece in unit["pieces"]]
    num_bytes = [sum(table["num_bytes"].to_pylist()) for table in tables]
    assert num_bytes == [piece["num_bytes"] for unit in units for piece in unit["pieces"]]
    assert sum(sizes) == sum(unit["kept"] for unit in units)
    texts = [one for table in tables for one in table["text"].to_pylist()]
    assert len(set(texts)) == len(texts)
    return set(texts)


def told(folder: Path, *, out: str = "selected") -> dict[tuple[str, str, int], tuple[str, str]]:
    """(source, file, offset) -> (reason, detail) of all drops of the selection."""
    rows = [row for url in drops.drop_files(f"{folder}/{out}") for row in pq.read_table(url).to_pylist()]
    for row in rows:
        path = row["uri"].rpartition("/")[2]
        assert row["id"] == document_id(row["source"], path, row["offset"])
    found = {(r["source"], r["uri"].rpartition("/")[2], r["offset"]): (r["reason"], r["detail"]) for r in rows}
    assert len(found) == len(rows), "one reason each"
    return found


def offsets(texts: list[str]) -> list[int]:
    return np.cumsum([0, *(len(json.dumps({"text": one})) + 1 for one in texts)]).tolist()


def exam(folder: Path, *texts: str) -> list[EvaluationSet]:
    (folder / "exam.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in texts))
    return [EvaluationSet("jsonl", str(folder / "exam.jsonl"), name="exam")]


# --- what is dropped --------------------------------------------------------------------------------------------------


def test_of_equal_texts_the_first_in_the_order_of_the_sources_is_kept(tmp_path):
    a, b, c = (prose(number, 12) for number in range(3))
    units = units_of(tmp_path, z=[[a, b], [b.replace(" ", "\n"), c]], a=[[c, a, a + "!"]])
    selected = select(tmp_path, units, duplicates="exact")
    assert left(tmp_path, selected) == {a, b, c, a + "!"}
    name = lambda source, path, offset: "of " + document_id(source, path, offset).hex()  # noqa: E731
    assert told(tmp_path) == {
        ("z", "1.jsonl", 0): ("duplicate", name("z", "0.jsonl", offsets([a])[1])),
        ("a", "0.jsonl", 0): ("duplicate", name("z", "1.jsonl", offsets([b.replace(" ", "\n")])[1])),
        ("a", "0.jsonl", offsets([c])[1]): ("duplicate", name("z", "0.jsonl", 0)),
    }
    assert dropped(selected) == [{}, {"duplicate": 1}, {"duplicate": 2}]


def test_near_duplicates_are_dropped_after_the_first(tmp_path):
    a, b = prose(0), prose(1)
    units = units_of(tmp_path, s=[[a, b], [a + " More.", b.upper() + " End", prose(2)], [a]])
    selected = select(tmp_path, units, duplicates="near")
    assert left(tmp_path, selected) == {a, b, prose(2)}
    first = document_id("s", "0.jsonl", 0).hex()
    assert told(tmp_path) == {
        ("s", "1.jsonl", 0): ("near_duplicate", f"of {first}"),
        ("s", "1.jsonl", offsets([a + " More."])[1]): (
            "near_duplicate",
            f"of {document_id('s', '0.jsonl', offsets([a])[1]).hex()}",
        ),
        ("s", "2.jsonl", 0): ("duplicate", f"of {first}"),
    }
    assert left(tmp_path, select(tmp_path, units, out="exact", duplicates="exact")) > left(tmp_path, selected)


def test_documents_that_are_dropped_already_hide_no_near_duplicate(tmp_path):
    a = prose(0)
    units = units_of(tmp_path, s=[[a], [a + " More."], [a + " Even more."]])
    first = document_id("s", "0.jsonl", 0).hex()
    selected = select(tmp_path, units, duplicates="near", exclude=[first])
    assert left(tmp_path, selected) == {a + " More."}
    assert [reason for reason, _ in told(tmp_path).values()] == ["excluded", "near_duplicate"]


def test_exclusion_by_id_by_url_and_by_path(tmp_path):
    texts = [prose(number, 9) for number in range(9)]
    units = units_of(tmp_path, a=[texts[:2], texts[2:4], texts[4:6]], b=[texts[6:]])
    url = f"{tmp_path}/raw/a/1"
    chosen = document_id("a", "0.jsonl", offsets(texts)[1]).hex()
    exclude = [chosen.upper(), url, url + ".jsonl", "2.j", "nothing", "0" * 32, f"{tmp_path}/raw/b/1"]
    selected = select(tmp_path, units, duplicates="off", exclude=exclude)
    assert left(tmp_path, selected) == {texts[0], *texts[6:]}
    assert told(tmp_path) == {
        ("a", "0.jsonl", offsets(texts)[1]): ("excluded", chosen),
        **{("a", "1.jsonl", offset): ("excluded", url) for offset in offsets(texts[2:3])},
        **{("a", "2.jsonl", offset): ("excluded", "2.j") for offset in offsets(texts[4:5])},
    }
    plan = selection.resolve(SelectConfig(duplicates="off", exclude=exclude), preset="off")
    assert set(selection.unmatched(plan, selected)) == {"nothing", "0" * 32, f"{tmp_path}/raw/b/1"}


def test_many_prefixes_are_looked_up_as_each_would_be():
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("ab/"), rng.integers(1, 7))) for _ in range(300)]
    exclude = sorted({name for name in names[:60] if len(name) > 2})
    table = small_table(names)
    found = dict(selection._excluded(table, exclude))
    expected = {
        row: next(e for e in exclude if name.startswith(e))
        for row, name in enumerate(names)
        if name.startswith(tuple(exclude))
    }
    assert found == expected
    assert 0 < len(found) < 300


def small_table(paths: list[str]):
    return drops.pa.table({"id": [bytes(16)] * len(paths), "uri": [f"s3:{path}" for path in paths], "path": paths})


def test_contaminated_documents_are_dropped_or_flagged(tmp_path):
    texts = [prose(number) for number in range(6)]
    sets = exam(tmp_path, "Question: " + texts[1], texts[4][40:200], "short", texts[1][:120], prose(99))
    units = units_of(tmp_path, s=[texts[:3], texts[3:]])
    at = offsets([json.loads(line)["text"] for line in (tmp_path / "exam.jsonl").read_text().splitlines()])
    places = {1: ("0.jsonl", offsets(texts)[1]), 4: ("1.jsonl", offsets(texts[3:])[1])}
    report = [
        ("exam", "exam.jsonl", at[entry], document_id("s", *places[doc])) for doc, entry in ((1, 0), (1, 3), (4, 1))
    ]
    sums = [{"name": "exam", "entries": 5, "too_short": 1, "found": 3, "documents": 2}]

    selected = select(tmp_path, units, decontaminate=sets)
    assert left(tmp_path, selected) == set(texts) - {texts[1], texts[4]}
    assert told(tmp_path) == {
        ("s", *places[1]): ("contaminated", f"exam: exam.jsonl at {at[0]}"),
        ("s", *places[4]): ("contaminated", f"exam: exam.jsonl at {at[1]}"),
    }
    flagged = select(tmp_path, units, decontaminate=sets, contaminated="flag", out="flagged")
    assert left(tmp_path, flagged) == set(texts)
    assert told(tmp_path, out="flagged") == {}
    for out in ("selected", "flagged"):
        assert storage.read_json(f"{tmp_path}/{out}/record.json")["contamination"] == sums
        rows = pq.read_table(f"{tmp_path}/{out}/contamination.parquet").to_pylist()
        assert sorted(tuple(row.values()) for row in rows) == sorted(report)


def test_nothing_contaminated_is_reported_too(tmp_path):
    units = units_of(tmp_path, s=[[prose(0)]])
    select(tmp_path, units, decontaminate=exam(tmp_path, prose(1)))
    assert storage.read_json(f"{tmp_path}/selected/record.json") == {
        "dropped": [],
        "contamination": [{"name": "exam", "entries": 1, "too_short": 0, "found": 0, "documents": 0}],
    }
    assert pq.read_table(f"{tmp_path}/selected/contamination.parquet").num_rows == 0


def test_excluded_goes_before_contaminated_before_duplicate(tmp_path):
    a, b = prose(0), prose(1)
    units = units_of(tmp_path, s=[[a], [a], [b], [b], [b]])
    settings = {"exclude": ["0.jsonl", "2.jsonl"], "decontaminate": exam(tmp_path, a), "duplicates": "near"}
    selected = select(tmp_path, units, **settings)
    assert left(tmp_path, selected) == {b}
    assert dropped(selected) == [
        {"excluded": 1},
        {"contaminated": 1},
        {"excluded": 1},
        {},
        {"duplicate": 1},
    ], "when the first copy is excluded the second is kept"


# --- everything at once -----------------------------------------------------------------------------------------------


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
        patch.setattr(dataflow, "run_tasks", one_by_one())
        return folder, select_busy(busy, folder)


@pytest.fixture
def copy(done, tmp_path) -> Path:
    """A copy of the finished selection."""
    return Path(shutil.copytree(done[0], tmp_path / "copy"))


def dropped(units: list[dict]) -> list[dict]:
    """Reasons of each unit besides the malformed line."""
    assert all(unit["dropped"]["malformed_json"] == 1 for unit in units)
    return [{name: n for name, n in unit["dropped"].items() if name != "malformed_json"} for unit in units]


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
    listed = ledger.join_ledgers([*ledgers, *drops.drop_files(f"{folder}/selected")], f"{folder}.parquet")
    gone = pq.read_table(f"{folder}.parquet")["id"].to_pylist()
    assert listed == balance["documents"]["dropped"] == len(set(gone))
    tables = [
        drops.read_kept(f"{folder}/text", unit["path"], piece, unit["selection"], ["id"])["id"].to_pylist()
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
    monkeypatch.setattr(dataflow, "run_tasks", one_by_one(lambda items: items[1::2] + items[::2]))
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


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "kind"), [("off", "off"), ("light", "exact"), ("strict", "near")])
def test_auto_follows_the_preset(preset, kind):
    assert selection.resolve(SelectConfig(), preset=preset).settings["duplicates"] == kind
    assert selection.resolve(SelectConfig(duplicates="exact"), preset=preset).settings["duplicates"] == "exact"


def test_settings_that_change_nothing_are_no_part_of_the_plan():
    configs = [
        SelectConfig(),
        SelectConfig(similarity=0.7),
        SelectConfig(contaminated="flag"),
        SelectConfig(duplicates="exact"),
    ]
    plans = [selection.resolve(config, preset="light").settings for config in configs]
    assert plans == [{"duplicates": "exact", "exclude": []}] * 4
    assert selection.resolve(SelectConfig(exclude=["b", "a", "b"]), preset="off").settings["exclude"] == ["a", "b"]
    near = [selection.resolve(SelectConfig(similarity=s), preset="strict").settings for s in (0.7, 0.8)]
    assert near[0] != near[1]


@pytest.mark.parametrize("value", [0.49, 1.01, -1, 80])
def test_a_similarity_outside_its_range_is_refused(value):
    with pytest.raises(UserError, match=r"similarity=.* is outside \[0.5, 1\]"):
        selection.resolve(SelectConfig(similarity=value), preset="strict")
    for allowed in (0.5, 1.0):
        selection.resolve(SelectConfig(similarity=allowed), preset="strict")


def test_an_empty_exclusion_is_refused():
    with pytest.raises(UserError, match="every URL begins with it"):
        selection.resolve(SelectConfig(exclude=["a", ""]), preset="off")


def test_a_selection_that_leaves_nothing_says_why(tmp_path):
    units = units_of(tmp_path, s=[[prose(0)], [prose(1)]])
    with pytest.raises(DataError, match="leaves no document") as error:
        select(tmp_path, units, exclude=["0.jsonl"], decontaminate=exam(tmp_path, prose(1)))
    assert sorted(error.value.why.removeprefix("dropped: ").split(", ")) == [
        "contaminated 1",
        "excluded 1",
        "malformed_json 2",
    ]


def test_without_a_selection_units_are_as_they_were(tmp_path, ran):
    units = units_of(tmp_path, s=[[prose(0), prose(0)]])
    assert select(tmp_path, units, duplicates="off") is units
    assert ran == []
    assert not (tmp_path / "selected").exists()


# --- in the whole preparation -----------------------------------------------------------------------------------------


def test_a_store_without_some_documents_is_made_without_reading_the_sources(tmp_path, monkeypatch, tiny_tokenizer):
    tiny_tokenizer.save(f"{tmp_path}/tokenizer")
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in small.documents(60)))
    (tmp_path / "taken.txt").write_text("A text that is to be taken down, of more than twenty characters.")
    calls = []
    clean_files = text.clean_files
    monkeypatch.setattr(dataflow, "run_tasks", one_by_one())
    monkeypatch.setattr(text, "clean_files", lambda *args, **more: calls.append(args) or clean_files(*args, **more))

    def make(**settings):
        config = DataConfig(
            sources=[Source("jsonl", f"{tmp_path}/corpus.jsonl"), Source("text", f"{tmp_path}/taken.txt")],
            root=f"{tmp_path}/data",
            tokenizer=TokenizerConfig(url=f"{tmp_path}/tokenizer"),
            sequence_length=32,
            row_width=160,
            select=SelectConfig(**settings),
        )
        return prepare.prepare(config, BlanksConfig(), progress=lambda stage, records, total: records)

    everything = make()
    assert len(calls) == 2
    less = make(exclude=[f"{tmp_path}/taken.txt"])
    assert len(calls) == 2
    assert less.url != everything.url
    assert [opened.manifest["documents"]["kept"] for opened in (everything, less)] == [61, 60]
    (row,) = pq.read_table(f"{less.url}/ledger.parquet").to_pylist()
    assert (row["uri"], row["reason"], row["detail"]) == (
        f"{tmp_path}/taken.txt",
        "excluded",
        f"{tmp_path}/taken.txt",
    )
