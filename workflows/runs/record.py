"""`run.json`: what a run's folder says of the run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from glm_model.config import GLMConfig
from infra import checkpoint, storage
from infra.tracking import RunHandle
from infra.tracking.metric_log import read_points

_FILE = "run.json"


@dataclass(frozen=True)
class Validation:
    """Bits per byte of the held-out text, where it was validated."""

    first: float | None = None
    last: float | None = None


@dataclass(frozen=True)
class RunRecord:
    """What is known of a run. A field that is None is not known yet, and stays out of the file."""

    name: str
    identity: str
    """Digest of the settings that decide what the run computes."""
    settings: dict[str, str]
    """Those settings, flat: to say what differs."""
    finished: bool = False
    model: GLMConfig | None = None
    """Shape of the model, fixed when the run begins."""
    init_digest: str | None = None
    """Digest of the weights that the run began with, if they are another model's."""
    url: str | None = None
    """Where the run lay when it was last trained: what lay beside it may have moved with it."""
    store_url: str | None = None
    store_digest: str | None = None
    steps: int | None = None
    """Optimizer steps, fixed when the run begins."""
    mlflow_run_id: str | None = None
    tracking_uri: str | None = None
    experiment_id: str | None = None
    validation: Validation | None = None
    in_mlflow: bool | None = None
    """Whether MLflow has got all of a finished run."""

    @property
    def tracking(self) -> RunHandle | None:
        """The run in MLflow; None: it was never tracked."""
        if self.tracking_uri is None or self.mlflow_run_id is None or self.experiment_id is None:
            return None
        return RunHandle(self.tracking_uri, self.mlflow_run_id, self.experiment_id)


def has_record(run_url: str) -> bool:
    """Whether this folder is a run's."""
    return storage.exists(storage.join(run_url, _FILE))


def has_trained(url: str) -> bool:
    """Whether a step of the run in this folder is kept, as a checkpoint or as a point of its log."""
    points = storage.join(url, "metrics.jsonl")
    return checkpoint.latest(storage.join(url, "checkpoints")) is not None or (
        storage.exists(points) and any(point.step > 0 for point in read_points(points))
    )


def read_record(run_url: str) -> RunRecord:
    """The record in a run's folder. Keys that this version does not know are left out."""
    content: dict[str, Any] = storage.read_json(storage.join(run_url, _FILE))
    known = {field.name for field in fields(RunRecord)}
    values = {"name": storage.base_name(run_url), "identity": "", "settings": {}}
    values |= {key: value for key, value in content.items() if key in known}
    if "model" in content:
        values["model"] = GLMConfig.from_dict(content["model"])
    if "validation" in content:
        values["validation"] = Validation(**content["validation"])
    return RunRecord(**values)


def write_record(record: RunRecord, run_url: str) -> None:
    storage.write_json(storage.join(run_url, _FILE), _known(asdict(record)))


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _known(value) if isinstance(value, dict) else value for key, value in values.items() if value is not None
    }
