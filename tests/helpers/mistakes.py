"""A small corpus, and settings of a run on it, for commands that are called wrongly."""

import json
from pathlib import Path


def write_texts(folder: Path) -> Path:
    folder.mkdir()
    lines = (json.dumps({"text": f"Document {i} speaks of the number {i} and of nothing else."}) for i in range(200))
    (folder / "a.jsonl").write_text("\n".join(lines))
    return folder


def small(texts: Path, tmp_path: Path, *more: str) -> list[str]:
    """The command line of a training of two steps, with more behind it."""
    source = f"--data.sources=[{{reader: jsonl, url: {texts}}}]"
    sizes = ["--data.tokenizer.train.vocab_size=600", "--data.sequence_length=64", "--data.row_width=256"]
    places = [f"--data.root={tmp_path}/data", f"--run.storage_path={tmp_path}/runs", "--tracking.enabled=false"]
    return [source, *sizes, *places, "--train.steps=2", "--train.batch_tokens=1k", *more]
