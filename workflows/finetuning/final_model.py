"""What a fine-tuning has trained: which weights are taken, and the model folder with its task."""

from __future__ import annotations

import json
from typing import Any

from safetensors import SafetensorError

from glm_model import GLM, Classifier
from infra import checkpoint, config
from infra.checkpoint import Checkpoint
from infra.errors import InfrastructureError
from workflows.finetuning.setup import FinetuneSetup
from workflows.runs.run import Run
from workflows.training.finetuning import LOSS


def chosen(setup: FinetuneSetup, run: Run) -> Checkpoint:
    """The checkpoint that becomes the model: the best one, or the last where nothing selects."""
    last = checkpoint.latest(run.checkpoints_url)
    assert last is not None, "a finished run has a checkpoint"
    return (checkpoint.best(run.checkpoints_url) or last) if setup.selection.split else last


def export(setup: FinetuneSetup, run: Run) -> None:
    """Write the chosen weights as a model folder, beside the task that they were trained on. Raises InfrastructureError
    where it cannot be written.
    """
    loaded = checkpoint.load(chosen(setup, run).url)
    model = (Classifier if setup.recipe.task.head else GLM).from_state(setup.shape, loaded.model)
    try:
        model.save_pretrained(run.model_url, setup.tokenizer, card=_card(setup, run, loaded.state))
    except (OSError, SafetensorError) as error:
        raise InfrastructureError(
            f"cannot write {run.model_url}: {error}",
            try_="free space or fix access, then run the same command: the training is done and only this is left",
        ) from error


def weights_text(setup: FinetuneSetup, state: dict[str, Any]) -> str:
    """Which weights the model has, and what chose them. state: of their checkpoint."""
    selection, metric, validated = setup.selection, setup.metrics[0], state["validated"]
    if selection.split is None:
        return f"those of the last step; selected on {selection.told}"
    score = f"{metric} {validated[f'val/{metric}']:.{3 if metric == LOSS else 1}f}"
    return f"those of step {state['step']:,}, {score}; selected on {selection.told}"


def task_record(setup: FinetuneSetup) -> dict[str, Any]:
    """What `task.json` says: what the model is asked, how, and what it came from."""
    task, pattern = setup.task, setup.task.pattern()
    return {
        "task": task.name,
        "version": task.version,
        "kind": task.kind,
        "digest": task.digest,
        "pattern": pattern.text,
        "labels": list(task.labels),
        "words": dict(pattern.words),
        "settings": config.plain(setup.recipe.task),
        "started_from": setup.started_from,
        "selected_on": setup.selection.told,
        "selected_in": setup.selection.split,
        "seed": setup.recipe.train.seed,
        "group": setup.group,
    }


def _card(setup: FinetuneSetup, run: Run, state: dict[str, Any]) -> str:
    return f"""# {run.name}

A GLM (General Language Model, Du et al., ACL 2022) fine-tuned for {setup.task.name}.

| | |
|---|---|
| begun with | {setup.started_from} |
| steps | {setup.steps:,} |
| items | {len(setup.selection.train):,} |
| weights | {weights_text(setup, state)} |
| seed | {setup.recipe.train.seed} |
| pattern | `{setup.task.pattern().text}` |
| label words | `{json.dumps(dict(setup.task.pattern().words), ensure_ascii=False)}` |
| task digest | `{setup.task.digest}` |
"""
