"""A small model with random weights as a model folder, and files of a task of one's own."""

import json
from pathlib import Path
from typing import Any

import torch

from glm_model import GLM, save_pretrained
from glm_model.config import GLMConfig
from glm_model.tokenizer import Tokenizer
from infra import config
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from workflows.evaluation.config import EvaluateConfig

WORDS = ["the", "cat", "sat", "on", "a", "mat", "dog", "ran", "home", "said", "go", "then"]


def model_folder(folder: Path, tokenizer: Tokenizer, *, positions: int = 48, seed: int = 0) -> str:
    """Its weights follow from the seed, whoever makes it."""
    shape = GLMConfig(
        layers=2, width=32, heads=2, vocab_size=128, positions=positions, dropout=0.0, attention_dropout=0.0
    )
    model = GLM(shape)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.ndim > 1:
                deviation = 0.5 if name == "token_embedding.weight" else 0.1
                parameter.copy_(torch.empty(parameter.shape).normal_(std=deviation, generator=generator))
            else:
                parameter.fill_(1.0 if name.endswith("norm.weight") else 0.0)
    save_pretrained(model, str(folder), tokenizer)
    return str(folder)


def rows(count: int) -> list[dict[str, Any]]:
    """Texts of the tiny vocabulary, of two labels, with ids."""
    return [
        {
            "id": f"item-{n}",
            "text": " ".join(WORDS[(n * 5 + place * (n % 3 + 1)) % len(WORDS)] for place in range(2 + n % 9)),
            "label": "good" if n % 3 else "bad",
        }
        for n in range(count)
    ]


def write(path: Path, written: list[dict[str, Any]]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in written))
    return str(path.parent)


def options(data: str, model: str, to: Path, **changes: Any) -> EvaluateConfig:
    found = EvaluateConfig(models=[model], to=str(to))
    found.task.data, found.task.id = data, "id"
    found.task.words = {"bad": "cat", "good": "dog"}
    found.tracking.enabled = False
    found.console.quiet = True
    for name, value in changes.items():
        setattr(found, name, value)
    return found


def teach(model: str, words: dict[str, str], **more: Any) -> str:
    """Make a model folder that of a fine-tuned model, as far as its task.json tells. more: what it tells besides."""
    return teach_task(model, TaskConfig(words=words), **more)


def teach_task(model: str, recipe: TaskConfig, **more: Any) -> str:
    """The same for any task."""
    task = tasks.define(recipe, lambda: [])
    taught = {
        "task": task.name,
        "version": task.version,
        "kind": task.kind,
        "digest": task.digest,
        "pattern": task.pattern().text,
        "labels": list(task.labels),
        "words": dict(task.pattern().words),
        "settings": config.plain(recipe),
        "started_from": "random weights",
        "selected_on": "none",
        **more,
    }
    Path(model, "task.json").write_text(json.dumps(taught))
    return model
