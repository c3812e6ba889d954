"""What benchmarks of predict.py begin with: a table of texts, and a classifier with random weights."""

from pathlib import Path

import _texts
import numpy as np
import pyarrow as pa
import torch

from glm_model import GLM, Tokenizer, save_pretrained, score, sized
from infra import config
from infra.storage import parquet
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.store.tokenizer_training import TokenizerTraining, train
from workflows.settings.taught import write_taught

WORDS = {"calm": "quiet", "glad": "bright"}
"""Labels and their words; a text is asked as "<text> It was [MASK]."."""
_CHUNK = 50_000  # rows that are made at once


def make(folder: Path, *, rows: int, tokens: int, size: str) -> None:
    """`in.parquet`, with ids from 0, texts of so many tokens and two candidates of three, and `model/`, which was
    taught WORDS.
    """
    tokenizer = train(_texts.documents(4000, seed=0), TokenizerTraining(vocab_size=2000))
    words = [word for word in tokenizer.surfaces() if word.isalpha()]  # each is one token
    draws = np.random.default_rng(0)
    schema = pa.schema([("id", pa.int64()), *((name, pa.string()) for name in ("text", "first", "second"))])
    with parquet.large_writer(f"{folder}/in.parquet", schema) as out:
        for first in range(0, rows, _CHUNK):
            numbers = np.arange(first, min(first + _CHUNK, rows))
            columns = {
                name: [" ".join(words[place] for place in row) for row in draws.integers(0, len(words), size).tolist()]
                for name, size in (
                    ("text", (len(numbers), tokens)),
                    ("first", (len(numbers), 3)),
                    ("second", (len(numbers), 3)),
                )
            }
            out.write_table(pa.table({"id": numbers, **columns}, schema=schema))
    torch.manual_seed(0)
    save_pretrained(GLM(sized(size)), f"{folder}/model", tokenizer)
    _teach(f"{folder}/model")


def shares(model_url: str, texts: list[str]) -> np.ndarray:
    """The share of each label of WORDS for each text, [texts, labels]: a plain pass, a text at a time."""
    model, tokenizer = GLM.from_pretrained(model_url), Tokenizer.load(model_url)
    found = []
    for text in texts:
        scores = score(model, tokenizer, f"{text} It was [MASK].", [*WORDS.values()], count_end=False)
        weights = np.exp([one.logprob for one in scores])
        found.append(weights / weights.sum())
    return np.array(found)


def _teach(model_url: str) -> None:
    recipe = TaskConfig(words=WORDS)
    task = tasks.define(recipe, lambda: [])
    taught = {"task": task.name, "version": task.version, "kind": task.kind, "labels": list(task.labels)}
    taught |= {"pattern": task.pattern().text, "words": dict(task.pattern().words), "settings": config.plain(recipe)}
    write_taught(taught, model_url)
