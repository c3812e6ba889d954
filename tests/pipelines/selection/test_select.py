"""Selection: what is excluded, contaminated or said before is left out, with a reason; all the rest is kept."""

import json

import pyarrow.parquet as pq
import pytest
from helpers import small
from helpers.runners import one_by_one
from helpers.selections import counts, exam, left, offsets, prose, reasons, select, units_of

from infra import storage
from infra.errors import DataError, UserError
from pipelines import prepare
from pipelines.blanks.mixture import BlanksConfig
from pipelines.config import DataConfig, TokenizerConfig
from pipelines.corpus.sources import Source
from pipelines.document import document_id
from pipelines.selection.config import SelectConfig
from pipelines.selection.exclusion import Exclusions
from pipelines.selection.select import resolve

# --- what is dropped --------------------------------------------------------------------------------------------------


def test_of_equal_texts_the_first_in_the_order_of_the_sources_is_kept(tmp_path):
    a, b, c = (prose(number, 12) for number in range(3))
    units = units_of(tmp_path, z=[[a, b], [b.replace(" ", "\n"), c]], a=[[c, a, a + "!"]])
    selected = select(tmp_path, units, duplicates="exact")
    assert left(selected) == {a, b, c, a + "!"}
    name = lambda source, path, offset: "of " + document_id(source, path, offset).hex()  # noqa: E731
    assert reasons(tmp_path) == {
        ("z", "1.jsonl", 0): ("duplicate", name("z", "0.jsonl", offsets([a])[1])),
        ("a", "0.jsonl", 0): ("duplicate", name("z", "1.jsonl", offsets([b.replace(" ", "\n")])[1])),
        ("a", "0.jsonl", offsets([c])[1]): ("duplicate", name("z", "0.jsonl", 0)),
    }
    assert counts(selected) == [{}, {"duplicate": 1}, {"duplicate": 2}]


def test_near_duplicates_are_dropped_after_the_first(tmp_path):
    a, b = prose(0), prose(1)
    units = units_of(tmp_path, s=[[a, b], [a + " More.", b.upper() + " End", prose(2)], [a]])
    selected = select(tmp_path, units, duplicates="near")
    assert left(selected) == {a, b, prose(2)}
    first = document_id("s", "0.jsonl", 0).hex()
    assert reasons(tmp_path) == {
        ("s", "1.jsonl", 0): ("near_duplicate", f"of {first}"),
        ("s", "1.jsonl", offsets([a + " More."])[1]): (
            "near_duplicate",
            f"of {document_id('s', '0.jsonl', offsets([a])[1]).hex()}",
        ),
        ("s", "2.jsonl", 0): ("duplicate", f"of {first}"),
    }
    assert left(select(tmp_path, units, out="exact", duplicates="exact")) > left(selected)


def test_documents_that_are_dropped_already_hide_no_near_duplicate(tmp_path):
    a = prose(0)
    units = units_of(tmp_path, s=[[a], [a + " More."], [a + " Even more."]])
    first = document_id("s", "0.jsonl", 0).hex()
    selected = select(tmp_path, units, duplicates="near", exclude=[first])
    assert left(selected) == {a + " More."}
    assert [reason for reason, _ in reasons(tmp_path).values()] == ["excluded", "near_duplicate"]


def test_exclusion_by_id_by_place_and_by_path(tmp_path):
    texts = [prose(number, 9) for number in range(9)]
    units = units_of(tmp_path, a=[texts[:2], texts[2:4], texts[4:6]], b=[texts[6:]])
    url = f"{tmp_path}/raw/a/1.jsonl"
    chosen = document_id("a", "0.jsonl", offsets(texts)[1]).hex()
    selected = select(tmp_path, units, duplicates="off", exclude=[chosen.upper(), url, "2.jsonl"])
    assert left(selected) == {texts[0], *texts[6:]}
    assert reasons(tmp_path) == {
        ("a", "0.jsonl", offsets(texts)[1]): ("excluded", chosen),
        **{("a", "1.jsonl", offset): ("excluded", url) for offset in offsets(texts[2:3])},
        **{("a", "2.jsonl", offset): ("excluded", "2.jsonl") for offset in offsets(texts[4:5])},
    }


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
    assert left(selected) == set(texts) - {texts[1], texts[4]}
    assert reasons(tmp_path) == {
        ("s", *places[1]): ("contaminated", f"exam: exam.jsonl at {at[0]}"),
        ("s", *places[4]): ("contaminated", f"exam: exam.jsonl at {at[1]}"),
    }
    flagged = select(tmp_path, units, decontaminate=sets, contaminated="flag", out="flagged")
    assert left(flagged) == set(texts)
    assert reasons(tmp_path, out="flagged") == {}
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
    assert left(selected) == {b}
    assert counts(selected) == [
        {"excluded": 1},
        {"contaminated": 1},
        {"excluded": 1},
        {},
        {"duplicate": 1},
    ], "when the first copy is excluded the second is kept"


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "kind"), [("off", "off"), ("light", "exact"), ("strict", "near")])
def test_auto_follows_the_preset(preset, kind):
    assert resolve(SelectConfig(), preset=preset).duplicates == kind
    assert resolve(SelectConfig(duplicates="exact"), preset=preset).duplicates == "exact"


def test_settings_that_change_nothing_do_not_name_a_selection():
    configs = [
        SelectConfig(),
        SelectConfig(similarity=0.7),
        SelectConfig(contaminated="flag"),
        SelectConfig(duplicates="exact"),
    ]
    settings = [resolve(config, preset="light").settings for config in configs]
    assert settings == [{"duplicates": "exact", "exclude": []}] * 4
    exclude = Exclusions(("0f", "ff"), {("news", "a.txt"): "/x/a.txt"})
    assert resolve(SelectConfig(), preset="off", exclude=exclude).settings["exclude"] == ["0f", "ff", "news: a.txt"]
    near = [resolve(SelectConfig(similarity=s), preset="strict").settings for s in (0.7, 0.8)]
    assert near[0] != near[1]


@pytest.mark.parametrize("value", [0.49, 1.01, -1, 80])
def test_a_similarity_outside_its_range_is_refused(value):
    with pytest.raises(UserError, match=f"similarity must be between 0.5 and 1, got {value:g}"):
        resolve(SelectConfig(similarity=value), preset="strict")
    for allowed in (0.5, 1.0):
        resolve(SelectConfig(similarity=allowed), preset="strict")


def test_a_selection_that_leaves_nothing_says_why(tmp_path):
    units = units_of(tmp_path, s=[[prose(0)], [prose(1)]])
    with pytest.raises(DataError, match="leaves no document") as error:
        select(tmp_path, units, exclude=["0.jsonl"], decontaminate=exam(tmp_path, prose(1)))
    assert sorted(error.value.why.removeprefix("dropped: ").split(", ")) == [
        "contaminated 1",
        "excluded 1",
        "malformed_json 2",
    ]


def test_without_a_selection_units_are_as_they_were(tmp_path):
    units, ran = units_of(tmp_path, s=[[prose(0), prose(0)]]), []
    selected = select(tmp_path, units, duplicates="off", runner=one_by_one(ran=ran))
    assert (selected.units, selected.text.selection, ran) == (units, None, [])
    assert not (tmp_path / "selected").exists()


# --- in the whole preparation -----------------------------------------------------------------------------------------


def test_a_store_without_some_documents_is_made_without_reading_the_sources(tmp_path, tiny_tokenizer):
    tiny_tokenizer.save(f"{tmp_path}/tokenizer")
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": one}) + "\n" for one in small.documents(60)))
    (tmp_path / "taken.txt").write_text("A text that is to be taken down, of more than twenty characters.")
    ran = []

    def make(**settings):
        config = DataConfig(
            sources=[Source("jsonl", f"{tmp_path}/corpus.jsonl"), Source("text", f"{tmp_path}/taken.txt")],
            root=f"{tmp_path}/data",
            tokenizer=TokenizerConfig(url=f"{tmp_path}/tokenizer"),
            sequence_length=32,
            row_width=160,
            max_unknown=1.0,
            select=SelectConfig(**settings),
        )
        return prepare.prepare(prepare.preparation_of(config, BlanksConfig()), one_by_one(ran=ran))

    def cleaned() -> int:
        return sum(isinstance(job, prepare.CleanJob) for job in ran)

    everything = make()
    assert cleaned() == 2
    less = make(exclude=[f"{tmp_path}/taken.txt"])
    assert cleaned() == 2
    assert less.url != everything.url
    assert [store.manifest.documents.kept for store in (everything, less)] == [61, 60]
    (row,) = pq.read_table(f"{less.url}/ledger.parquet").to_pylist()
    assert (row["uri"], row["reason"], row["detail"]) == (
        f"{tmp_path}/taken.txt",
        "excluded",
        f"{tmp_path}/taken.txt",
    )
