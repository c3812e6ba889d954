"""A corpus that a run of some seconds learns from, and the settings of such a run."""

import json
from pathlib import Path
from typing import Any

_WORDS = [
    "amber",
    "birds",
    "cross",
    "evening",
    "fields",
    "golden",
    "hills",
    "inside",
    "june",
    "kites",
    "linger",
    "night",
]


def write_corpus(folder: Path) -> Path:
    """400 documents of 30 to 79 words, no two equal."""
    folder.mkdir(parents=True)
    with open(folder / "texts.jsonl", "w") as file:
        for i in range(400):
            words = [_WORDS[(i * 7 + j * (i % 5 + 1)) % len(_WORDS)] for j in range(30 + i % 50)]
            text = " ".join(word + ("." if j % 9 == 8 else "") for j, word in enumerate(words))
            file.write(json.dumps({"text": f"{i} {text}."}) + "\n")
    return folder


def settings(corpus: Path) -> dict[str, Any]:
    """Rows of four segments; two rows a micro-batch; each step is logged. Muon moves matrices, AdamW the rest."""
    return {
        "data.sources": f"[{{reader: jsonl, url: {corpus}}}]",
        "data.root": f"{corpus}-data",
        "data.tokenizer.train.vocab_size": 600,
        "data.sequence_length": 64,
        "data.row_width": 256,
        "data.rows_per_group": 8,
        "data.validation_fraction": 0.05,
        "data.validation_tokens": 500,
        "train.micro_rows": 2,
        "train.precision": "fp32",
        "train.log_every": 1,
        "optim.name": "muon",
        "optim.lr": 0.01,
        "tracking.enabled": "false",
    }


def flags(values: dict[str, Any]) -> list[str]:
    """As a command line has them."""
    return [f"--{key}={value}" for key, value in values.items()]
