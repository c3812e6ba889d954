"""Selections of small corpora, without Ray, and what they dropped."""

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from helpers import small
from helpers.runners import one_by_one

from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.records import Unit, buckets_of
from pipelines.corpus.sources import Source, list_inputs
from pipelines.document import document_id
from pipelines.selection import select as select_module
from pipelines.selection.config import EvaluationSet, SelectConfig
from pipelines.selection.dropped import drop_files, read_kept
from pipelines.selection.exclusion import find_excluded
from pipelines.selection.select import Selected
from pipelines.stages import Runner

WORDS = [f"{a}{b}" for a, b in itertools.product(("ba", "ko", "shi", "tel", "run", "gra"), ("le", "mi", "ton", "sk"))]


def prose(number: int, words: int = 80) -> str:
    """A text of its own."""
    return " ".join(np.random.default_rng(number).choice(WORDS, words)) + "."


def units_of(folder: Path, **sources: list[list[str]]) -> list[Unit]:
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


def select(
    folder: Path,
    units: list[Unit],
    *,
    out: str = "selected",
    runner: Runner | None = None,
    raw: Path | None = None,
    **settings,
) -> Selected:
    """Select from units of cleaned text. raw: folder of the sources that `exclude` names files of."""
    config, raw = SelectConfig(**settings), raw or folder / "raw"
    files = list_inputs([Source("jsonl", str(place)) for place in sorted(raw.iterdir())]) if config.exclude else []
    selection = select_module.resolve(config, preset="off", exclude=find_excluded(config.exclude, files))
    return select_module.select(selection, units, f"{folder}/text", f"{folder}/{out}", runner or one_by_one())


def left(selected: Selected) -> set[str]:
    """Texts of the documents that are kept, by way of what later stages read."""
    places = buckets_of(selected.units)
    tables = [read_kept(selected.text, place.unit, place.bucket, ["text", "num_bytes"]) for place in places]
    sizes = [len(table) for table in tables]
    assert sizes == [place.bucket.documents for place in places]
    assert [sum(table["num_bytes"].to_pylist()) for table in tables] == [place.bucket.num_bytes for place in places]
    assert sum(sizes) == sum(unit.kept for unit in selected.units)
    texts = [one for table in tables for one in table["text"].to_pylist()]
    assert len(set(texts)) == len(texts)
    return set(texts)


def reasons(folder: Path, *, out: str = "selected") -> dict[tuple[str, str, int], tuple[str, str]]:
    """(source, file, offset) -> (reason, detail) of all drops of the selection."""
    rows = [row for url in drop_files(f"{folder}/{out}") for row in pq.read_table(url).to_pylist()]
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


def counts(selected: Selected) -> list[dict[str, int]]:
    """Documents of each unit that are dropped, by reason, besides the malformed line."""
    assert all(unit.dropped["malformed_json"] == 1 for unit in selected.units)
    return [{name: n for name, n in unit.dropped.items() if name != "malformed_json"} for unit in selected.units]
