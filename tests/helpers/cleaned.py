"""A corpus of JSON lines, and what cleaning a unit of it kept and dropped."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from pipelines.corpus.sources import InputFile, Source, list_inputs

_COLUMNS = ["id", "key", "path", "offset", "num_bytes", "text"]


def jsonl(folder: Path, lines: list[str | bytes], name: str = "corpus", **options) -> list[InputFile]:
    folder.mkdir(parents=True, exist_ok=True)
    data = b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines)
    (folder / f"{name}.jsonl").write_bytes(data)
    return list_inputs([Source("jsonl", str(folder / f"{name}.jsonl"), name=name, options=options)])


def lines(texts: list[str]) -> list[str]:
    return [json.dumps({"text": text}) for text in texts]


def kept(out: str | Path) -> list[dict]:
    return pq.read_table(f"{out}.parquet", columns=_COLUMNS).to_pylist()


def ledger(out: str | Path) -> list[dict]:
    return pq.read_table(f"{out}.ledger.parquet").to_pylist()
