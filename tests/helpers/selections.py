"""Selections without Ray: small corpora, their stages run one task after the other, and what was dropped."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from helpers import small

from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.sources import Source, list_inputs
from pipelines.document import document_id
from pipelines.selection import dropped as drops
from pipelines.selection import select as selection
from pipelines.selection.contamination import EvaluationSet
from pipelines.selection.select import SelectConfig

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


def dropped(units: list[dict]) -> list[dict]:
    """Reasons of each unit besides the malformed line."""
    assert all(unit["dropped"]["malformed_json"] == 1 for unit in units)
    return [{name: n for name, n in unit["dropped"].items() if name != "malformed_json"} for unit in units]
