"""A run's folder and identity: new, continued or finished; what the workers are told; what MLflow is told.

<run.storage_path>/<name>/run.json        identity, settings, tracking run, whether it is finished
                          config.yaml     the resolved recipe
                          metrics.jsonl   every logged point: the truth that MLflow mirrors
                          checkpoints/    infra.checkpoint
                          examples.html   what the model was asked
                          model/          the exported model
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from glm_model import GLMConfig
from infra import storage
from infra.errors import DataError, UserError
from workflows.settings.shape import pretrained_config

if TYPE_CHECKING:
    from workflows.runs.run import Run
    from workflows.settings.recipe import Recipe
import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import checkpoint, config, tracking
from infra.console import Console
from infra.tracking.metric_log import MetricLog, read_points
from infra.tracking.mlflow_client import client_of, first_line, without_password
from pipelines.blanks.mixture import resolve
from pipelines.feed import stored_blanks
from pipelines.store.format import TokenStore
from workflows.settings.budget import Budget
from workflows.settings.recipe import Recipe, identity, identity_settings
from workflows.settings.shape import model_name
from workflows.training.initial_weights import weights_digest
from workflows.training.job import Job
from workflows.training.pretraining import Pretraining

_CATCH_UP_S = 30.0  # most that the end of a run waits for MLflow


@dataclass
class Run:
    name: str
    url: str
    identity: str
    record: dict[str, Any]

    @property
    def finished(self) -> bool:
        return bool(self.record.get("finished"))

    @property
    def checkpoints_url(self) -> str:
        return storage.join(self.url, "checkpoints")

    @property
    def model_url(self) -> str:
        return storage.join(self.url, "model")

    @staticmethod
    def of(recipe: Recipe, name: str) -> "Run":
        """A run of this name as it would begin, whatever there is of it."""
        mine, settings = identity(recipe), identity_settings(recipe)
        record = {"name": name, "identity": mine, "settings": settings, "finished": False}
        return Run(name, storage.join(recipe.run.storage_path, name), mine, record)

    def attempt_name(self) -> str:
        """Ray Train keeps its own state per name; ours is in the checkpoints, so every attempt gets a fresh one."""
        return f"attempt-{int(time.time())}"

    def write(self) -> None:
        storage.write_json(storage.join(self.url, "run.json"), self.record)


def find_run(run: str) -> str:
    """URL of the run of this folder (of several, `runs/a-*`, the newest), URL, name in ./runs or MLflow id. Raises
    DataError when there is none.
    """
    for url in (storage.newest(run), storage.join("runs", run)):
        if storage.exists(storage.join(url, "run.json")):
            return storage.absolute(url)
    uri = str(tracking.resolve_uri(tracking.TrackingConfig(), "./runs"))
    why = f"there is no run.json in it, nor in ./runs/{run}"
    try:
        tags = client_of(uri).get_run(run).data.tags
    except Exception as error:
        why = f"{why}; and MLflow at {without_password(uri)} says: {first_line(error)}"
        raise DataError(f"{run} is no run", why=why, try_="a run's folder, or MLFLOW_TRACKING_URI and its id") from None
    url = tags.get("glm.run_dir", "")
    if not storage.exists(storage.join(url, "run.json")):
        raise DataError(f"the folder of the run {run} is gone", why=f"it was {url}")
    return url


def has_begun(recipe: Recipe, name: str) -> bool:
    """Whether a run of this name is there to be continued, with a model."""
    place = storage.join(recipe.run.storage_path, name, "run.json")
    return not recipe.run.fresh and storage.exists(place) and "model" in storage.read_json(place)


def open_run(recipe: Recipe, name: str) -> Run:
    """The run of this name, or a new one: nothing of it is written, and nothing that it replaces removed, before
    `start`. Raises UserError when it exists with other settings, or its folder holds something else.
    """
    url = storage.join(recipe.run.storage_path, name)
    place = storage.join(url, "run.json")
    mine = identity(recipe)
    known = storage.exists(place)
    if not known and storage.exists(url) and storage.list_files(url):
        raise UserError(
            f"{url} is no run",
            why="it holds files but no run.json, so something else lives there",
            try_="another --run.name or --run.storage_path",
        )
    if not known or recipe.run.fresh:
        return Run.of(recipe, name)
    record = storage.read_json(place)
    if record["identity"] != mine:
        raise UserError(
            f"the run {name!r} exists with other settings: "
            f"{_differences(record['settings'], identity_settings(recipe))}",
            why=f"{url} was started with them, and a run keeps its settings",
            try_="another --run.name, or --run.fresh=true to start this one anew",
        )
    return Run(name, url, mine, record)


@contextlib.contextmanager
def held(run: Run) -> Iterator[None]:
    """Keep other processes of this machine (and of nodes that share its folder) from training the same run.

    The lock ends with the process, however that ends. Raises UserError when another one holds it. On object stores
    there is no lock.
    """
    if not storage.is_local(run.url):
        yield
        return
    folder, name = os.path.split(storage.absolute(run.url))
    with open(os.path.join(folder, f".{name}.lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"the run {run.name!r} is being trained by another process",
                why=f"it holds {lock.name}",
                try_="wait for it, or stop it, and this command continues the run; or another --run.name",
            ) from None
        except OSError as error:  # some network file systems know no locks
            Console().warn(f"the run is not locked against a second driver: {error}")
        yield


def own_store(run: Run) -> TokenStore | None:
    """The store that an unfinished run began with, while it exists: what has happened to the corpus since, or to the
    packages that train its tokenizer, must not change what the run sees.
    """
    url = run.record.get("store_url")
    if url is None or not storage.exists(storage.join(url, "manifest.json")):
        return None
    return TokenStore.open(url)


def start(recipe: Recipe, run: Run, opened: TokenStore, budget: Budget) -> tracking.RunHandle:
    """Open the tracking run (the same one when continuing), log what never changes.

    Raises DataError when the run was trained on another store than this one.
    """
    if recipe.run.fresh:
        storage.remove_tree(run.url)
    begun = run.record.get("store_digest", opened.digest)
    if begun != opened.digest and checkpoint.latest(run.checkpoints_url):
        raise DataError(
            f"the run {run.name!r} was trained on another store: {begun[:12]}, and this is {opened.digest[:12]}",
            why=f"the corpus or its tokenizer has changed, and {run.record['store_url']} is gone",
            try_="bring that folder back; or --run.fresh=true, to begin anew on this store",
        )
    run.record |= {"store_url": opened.url, "store_digest": opened.digest, "steps": budget.steps}
    run.write()
    storage.write_bytes(storage.join(run.url, "config.yaml"), config.to_yaml(recipe).encode())
    mixture = resolve(recipe.blanks)
    handle = tracking.open_run(
        recipe.tracking,
        name=run.name,
        run_dir=run.url,
        params=config.flatten(recipe) | {f"budget.{key}": str(value) for key, value in budget.as_dict().items()},
        tags={
            "glm.phase": "pretrain",
            "glm.size": model_name(recipe),
            "glm.objectives": ",".join(mixture.names),
            "glm.store_digest": opened.digest,
            "glm.tokenizer_digest": opened.manifest["tokenizer_digest"],
            **tracking.git_tags(str(Path(__file__).resolve().parent)),
        },
        run_id=run.record.get("mlflow_run_id"),
        default_root=recipe.run.storage_path,
    )
    if handle.enabled and run.record.get("mlflow_run_id") != handle.run_id:
        run.record |= {
            "mlflow_run_id": handle.run_id,
            "tracking_uri": handle.uri,
            "experiment_id": handle.experiment_id,
        }
        run.write()
        tracking.log_text(handle, config.to_yaml(recipe), "config.yaml")
        tracking.log_store_input(handle, opened.manifest, opened.url, opened.digest)
    return handle


def worker_job(
    recipe: Recipe,
    run: Run,
    opened: TokenStore,
    budget: Budget,
    shape: GLMConfig,
    handle: tracking.RunHandle,
    *,
    link: str | None,
) -> Job:
    """All that a worker needs."""
    width = opened.manifest["settings"]["row_width"]
    mixture = resolve(recipe.blanks)
    blanks_key = stored_blanks.blanks_key(mixture, seed=recipe.blanks.seed, width=width)
    record = {"identity": run.identity, "store_digest": opened.digest, "mlflow_run_id": handle.run_id}
    return Job(
        Pretraining(recipe, budget, shape, opened.url, blanks_key, run.url),
        budget.steps,
        run.checkpoints_url,
        run.url,
        train=recipe.train,
        optim=recipe.optim,
        tracking=handle,
        link=link,
        record=record,
    )


def finish(run: Run, handle: tracking.RunHandle, validated: dict[str, float], screen: Console) -> None:
    """Close the run here and in MLflow. validated: what validation said of the exported model."""
    first = _first_bits(storage.join(run.url, "metrics.jsonl"))
    scores = {"first": first, "last": validated.get("val/bits_per_byte")}
    run.record |= {"finished": True, "validation": {key: value for key, value in scores.items() if value is not None}}
    is_tracked = "mlflow_run_id" in run.record
    run.record["in_mlflow"] = not is_tracked or (handle.enabled and _complete(run, handle))
    run.write()
    if not run.record["in_mlflow"]:
        _tell_lack(run, screen)


def catch_up(run: Run, recipe: Recipe, screen: Console) -> None:
    """Give MLflow what it lacks of a finished run because it was away at the end; says so when it still is."""
    if run.record.get("in_mlflow", True) or not recipe.tracking.enabled:
        return
    record = run.record
    handle = tracking.RunHandle(record["tracking_uri"], record["mlflow_run_id"], record["experiment_id"])
    with held(run):
        tracking.log_artifact_dir(handle, run.model_url, "model")
        run.record["in_mlflow"] = _complete(run, handle)
        run.write()
    if run.record["in_mlflow"]:
        screen.line(f"MLflow at {without_password(handle.uri)} has got what it lacked of this run")
    else:
        _tell_lack(run, screen)


def _tell_lack(run: Run, screen: Console) -> None:
    uri = without_password(run.record["tracking_uri"])
    screen.warn(f"MLflow at {uri} lacks points of this run, which are in {run.url}; the same command sends them")


def _complete(run: Run, handle: tracking.RunHandle) -> bool:
    """Send MLflow the points that it lacks and close the run there; False when it does not take them in time."""
    with tempfile.TemporaryDirectory(prefix="glm-metrics-") as folder:
        copy = os.path.join(folder, "metrics.jsonl")  # a log is appended to, which this one is not
        storage.write_bytes(copy, storage.read_bytes(storage.join(run.url, "metrics.jsonl")))
        log = MetricLog(copy, handle, resume_step=run.record["steps"])
        if not log.close(_CATCH_UP_S):
            return False
    tracking.finish(handle, "FINISHED")
    return True


def _first_bits(metrics_url: str) -> float | None:
    """The first bits per byte that the run logged."""
    values = (point.values for point in read_points(metrics_url))
    return next((one["val/bits_per_byte"] for one in values if "val/bits_per_byte" in one), None)


def _differences(before: dict[str, str], now: dict[str, str]) -> str:
    keys = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    told = [f"{key} was {before.get(key, 'unset')}, is {now.get(key, 'unset')}" for key in keys[:6]]
    return "; ".join(told) + (f"; and {len(keys) - 6} more" if len(keys) > 6 else "")


def settle_model(run: Run, recipe: Recipe, shape: Callable[[], GLMConfig]) -> GLMConfig:
    """The shape of a run's model: as it began, or as `shape` tells for a new run, whose record gets it.

    A run that has begun needs `model.init_from` no more. Raises DataError when another model stands there now.
    """
    url = recipe.model.init_from
    if url and (storage.exists(storage.join(url, "config.json")) or "model" not in run.record):
        pretrained_config(url)
        digest = weights_digest(url)
        if run.record.setdefault("init_digest", digest) != digest:
            raise DataError(
                f"{url} is not the model that the run {run.name!r} began with",
                why=f"its weights have the digest {digest}, and had {run.record['init_digest']}",
                try_="another --run.name, or --run.fresh=true, to begin with these",
            )
    if "model" not in run.record:
        run.record["model"] = shape().to_dict()
    return GLMConfig.from_dict(run.record["model"])
