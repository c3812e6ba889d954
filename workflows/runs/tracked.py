"""What MLflow gets of a pretraining: its entry, with settings that can be compared; a note; the model that it made.

record, url: a run's, as its folder has them; the folder itself.
"""

import json
from dataclasses import asdict
from pathlib import Path

from glm_model.config import num_parameters
from infra import commands, config, storage, tracking
from infra.console import human
from infra.tracking import LinkedDataset, LinkedModel, RunHandle
from infra.tracking.metric_log import read_points
from infra.tracking.note import Subject, close_broken, describe, describe_running
from pipelines.store.format import TokenStore, read_manifest
from workflows.runs.mlflow_views import PRETRAINING, offer_view
from workflows.runs.record import RunRecord
from workflows.runs.setup import Setup
from workflows.settings.identity import comparable_settings, recorded
from workflows.settings.models import weights_digest
from workflows.settings.shape import model_name


def open_entry(setup: Setup, record: RunRecord, url: str) -> RunHandle:
    """Open the run's entry, which a new run does not have yet."""
    recipe, store = setup.recipe, setup.store
    handle = tracking.open_run(
        recipe.tracking,
        name=record.name,
        run_dir=url,
        params=comparable_settings(recipe),
        tags={
            "glm.phase": "pretrain",
            "glm.size": model_name(recipe),
            "glm.parameters": human(setup.budget.parameters),
            "glm.objectives": ",".join(setup.feed.mixture.names),
            "glm.store_digest": store.digest,
            "glm.tokenizer_digest": store.manifest.tokenizer_digest,
            **tracking.git_tags(str(Path(__file__).resolve().parent)),
        },
        run_id=record.mlflow_run_id,
        default_root=recipe.run.storage_path,
    )
    if handle.run_id != record.mlflow_run_id:
        offer_view(handle, PRETRAINING)
        tracking.log_text(handle, config.to_yaml(recorded(recipe)), "config.yaml")
        tracking.log_text(handle, json.dumps(asdict(setup.budget), indent=2), "budget.json")
        tracking.link_dataset(handle, store_dataset(store), context="pretraining")
    describe_running(handle, subject_of(record, url))
    return handle


def close_entry(handle: RunHandle, record: RunRecord, url: str) -> None:
    """Close the entry of a finished run."""
    told, bits = "not validated", record.validation
    if bits and bits.first is not None and bits.last is not None:
        told = f"{bits.first:.3f} -> {bits.last:.3f} bits per byte of held-out text"
    describe(handle, subject_of(record, url), "finished", told)
    tracking.finish(handle, "finished")


def close_broken_entry(handle: RunHandle, record: RunRecord, url: str, error: BaseException, *, step: int) -> None:
    """Close the entry of a run that did not come to its end. step: that of its last checkpoint."""
    close_broken(handle, subject_of(record, url), error, step=step, steps=record.steps or 0)


def subject_of(record: RunRecord, url: str) -> Subject:
    """What a note says of a pretraining."""
    assert record.model is not None, "a run that has begun has a model"
    origin = record.settings.get("model.init_from", "null")
    begun = "" if origin == "null" else f", begun with the weights of `{origin}`"
    size = human(num_parameters(record.model))
    return Subject(
        f"**Pretraining** of a GLM with {size} parameters, {record.steps:,} steps{begun}",
        "To fill blanks with the model",
        commands.workflow("generate", "--model", storage.join(url, "model"), "--text", "Ray is a [MASK]."),
        f"Token store: `{record.store_url}`; folder: `{url}`",
    )


def record_model(handle: RunHandle, record: RunRecord, url: str) -> None:
    """Upload the run's model folder, and link it as what the run made, with its validation."""
    if not handle.enabled:
        return

    model_url, store_digest = storage.join(url, "model"), str(record.store_digest)
    tracking.log_artifact_dir(handle, model_url, "model")
    model = LinkedModel(record.name, weights_digest(model_url), model_url, {"glm.store_digest": store_digest})
    points = [p for p in read_points(storage.join(url, "metrics.jsonl")) if "val/bits_per_byte" in p.values]
    model_id = tracking.link_trained_model(handle, model, step=points[-1].step if points else record.steps or 0)
    if points and model_id:
        last, store_url = points[-1], record.store_url or ""
        is_there = storage.exists(storage.join(store_url, "manifest.json"))
        tracking.log_values(
            handle,
            {"val/bits_per_byte": last.values["val/bits_per_byte"]},
            step=last.step,
            seconds=last.time,  # the point that the run has: MLflow adds it to the model, and no second one to the run
            model_id=model_id,
            dataset=store_dataset(TokenStore.open(store_url)) if is_there else None,
        )


def store_dataset(store: TokenStore) -> LinkedDataset:
    """A token store as MLflow shows it."""
    names = " + ".join(source.name for source in store.manifest.sources)
    return LinkedDataset(names or storage.base_name(store.url), store.digest, store.url, read_manifest(store.url))
