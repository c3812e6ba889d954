"""A run's folder and identity: new, continued or finished; and its run in MLflow.

<run.storage_path>/<name>/run.json        identity, settings, tracking run, whether it is finished
                          config.yaml     the resolved recipe
                          metrics.jsonl   every logged point: the truth that MLflow mirrors
                          checkpoints/    infra.checkpoint
                          examples.html   what the model was asked
                          model/          the exported model
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from infra import checkpoint, config, storage, tracking
from infra.console import Console
from infra.errors import DataError, UserError
from infra.tracking.metric_log import MetricLog, read_points
from infra.tracking.mlflow_client import client_of, first_line, without_password
from pipelines.prepare import open_given
from pipelines.store.format import TokenStore
from pipelines.store.usage import note_use
from workflows.runs import tracked
from workflows.runs.record import RunRecord, Validation, has_record, has_trained, read_record, write_record
from workflows.runs.setup import Setup
from workflows.settings.identity import changed_settings, identity, identity_settings, recorded
from workflows.settings.models import weights_digest
from workflows.settings.recipe import Recipe
from workflows.settings.shape import pretrained_config

_CATCH_UP_S = 30.0  # longest that the end of a run waits for MLflow


@dataclass(frozen=True)
class Run:
    """A run as its folder has it, or as it would begin."""

    url: str
    record: RunRecord

    @staticmethod
    def of(recipe: Recipe, name: str) -> Run:
        """A run of this name as it would begin, whatever there is of it."""
        record = RunRecord(name=name, identity=identity(recipe), settings=identity_settings(recipe))
        return Run(storage.join(recipe.run.storage_path, name), record)

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def checkpoints_url(self) -> str:
        return storage.join(self.url, "checkpoints")

    @property
    def model_url(self) -> str:
        return storage.join(self.url, "model")

    def with_record(self, **fields: Any) -> Run:
        """The same run with these fields of its record."""
        return replace(self, record=replace(self.record, **fields))

    def attempt_name(self) -> str:
        """Ray Train keeps its own state per name; ours is in the checkpoints, so every attempt gets a fresh one."""
        return f"attempt-{int(time.time())}"

    def write(self) -> None:
        write_record(self.record, self.url)


CloseEntry = Callable[[Run, tracking.RunHandle], None]
"""Closes the entry of a finished run in MLflow."""


def find_run(run: str) -> str:
    """URL of the run that is meant: a folder (of several, `runs/a-*`, the newest), URL, name in ./runs or MLflow id.

    Raises DataError when there is none.
    """
    for url in (storage.newest(run), storage.join("runs", run)):
        if has_record(url):
            return storage.absolute(url)
    uri = str(tracking.resolve_uri(tracking.TrackingConfig(), "./runs"))
    why = f"it has no run.json, nor has ./runs/{run}"
    if set("*?/") & set(run):  # a pattern or a path: MLflow's ids are neither
        raise DataError(f"{run} is not a run", why=why, try_="give the path of a run's folder")
    try:
        tags = client_of(uri).get_run(run).data.tags
    except Exception as error:
        raise DataError(
            f"{run} is not a run",
            why=f"{why}; and MLflow at {without_password(uri)} says: {first_line(error)}",
            try_="give the path of a run's folder, or an MLflow run id with MLFLOW_TRACKING_URI set",
        ) from None
    url = tags.get("glm.run_dir", "")
    if not has_record(url):
        raise DataError(f"the folder of the run {run} is gone", why=f"it was {url}")
    return url


def has_begun(recipe: Recipe, name: str) -> bool:
    """Whether a run of this name is there to be continued, with a model."""
    url = storage.join(recipe.run.storage_path, name)
    if recipe.run.fresh or not has_record(url):
        return False
    record = read_record(url)
    return record.model is not None and (record.identity == identity(recipe) or has_trained(url))


def clear(run: Run, *, fresh: bool) -> None:
    """Remove what another run has left in this one's folder: of one that took no step, and with `fresh` of any."""
    others = has_record(run.url) and read_record(run.url).settings != run.record.settings
    if fresh or (others and not has_trained(run.url)):
        storage.remove_tree(run.url)


def open_run(recipe: Recipe, name: str) -> Run:
    """The run of this name, or a new one: nothing of it is written, and nothing that it replaces removed, before
    `start`. Raises UserError when it has trained with other settings, or its folder holds something else.
    """

    def changed(record: RunRecord, now: dict[str, str]) -> list[str]:
        keys = changed_settings(record.settings, now)
        return [] if all(key.startswith("data.") for key in keys) and _names_own_store(recipe, record) else keys

    run = resume(Run.of(recipe, name), fresh=recipe.run.fresh, changed=changed)
    return run.with_record(tracking_uri=_tracking_uri(run.record, recipe))


def resume(new: Run, *, fresh: bool, changed: Callable[[RunRecord, dict[str, str]], list[str]]) -> Run:
    """The run as its folder has it, or the new one where there is none or it is to be fresh. changed: (record,
    settings now) -> keys of the settings that differ. Raises as `open_run`.
    """
    is_known = has_record(new.url)
    if not is_known and storage.exists(new.url) and storage.list_files(new.url):
        raise UserError(
            f"{new.url} is not a run",
            why="it holds files but no run.json, so something else lives there",
            try_="choose another --run.name or --run.storage_path",
        )
    if not is_known or fresh:
        return new
    record = read_record(new.url)
    if keys := changed(record, new.record.settings):
        if not record.finished and not has_trained(new.url):  # interrupted before its first step: the name is free
            return new
        told = _differences(keys, record.settings, new.record.settings)
        raise UserError(
            f"the run {new.name!r} exists with other settings: {told}",
            why=f"{new.url} was started with them, and a run keeps its settings",
            try_="choose another --run.name, or --run.fresh=true to start this one from scratch",
        )
    return Run(new.url, replace(record, name=new.name))


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Keep other processes of this machine (and of nodes that share its folder) from training the same run.

    The lock ends with the process, however that ends. Raises UserError when another one has it. On object stores
    there are no locks.
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
                try_="wait for it, or stop it, and this command continues the run; or choose another --run.name",
            ) from None
        except OSError as error:  # some network file systems have no locks
            Console().warn(f"the run is not locked against a second driver: {error}")
        yield


def check_store(run: Run, store: TokenStore) -> None:
    """Raises DataError when a run that has trained already was trained on another store than this one."""
    before = run.record.store_digest
    if before is None or before == store.digest or not (run.record.finished or checkpoint.latest(run.checkpoints_url)):
        return
    raise DataError(
        f"the run {run.name!r} was trained on another store: {before[:12]}, and this is {store.digest[:12]}",
        why=f"the text or its tokenizer is not what it was: this store is {store.url}, that one lay at "
        f"{run.record.store_url}",
        try_="give the place where that store lies now: --data.store=<folder>; choose another --run.name for a run on "
        "this one; or --run.fresh=true, to begin from scratch on this one",
    )


def check_init_from(run: Run, url: str | None) -> Run:
    """The run with the digest of the weights that it begins with, if they are another model's, that of this folder.

    A run that has begun needs `model.init_from` no longer. Raises DataError where there is no model, and when the one
    that stands there now is not the one that the run began with.
    """
    if not url or (run.record.model is not None and not storage.exists(storage.join(url, "config.json"))):
        return run
    pretrained_config(url)
    digest, before = weights_digest(url), run.record.init_digest
    if before is not None and before != digest:
        raise DataError(
            f"{url} is not the model that the run {run.name!r} began with",
            why=f"its weights have the digest {digest}, and had {before}",
            try_="choose another --run.name, or --run.fresh=true, to begin with these",
        )
    return run.with_record(init_digest=digest)


def start(setup: Setup, run: Run) -> tuple[Run, tracking.RunHandle]:
    """Write the run's record and recipe, and open the tracking run (the same one when continuing).

    Raises DataError when the run was trained on another store than this one.
    """
    recipe, store = setup.recipe, setup.store
    clear(run, fresh=recipe.run.fresh)
    if not recipe.run.fresh:
        check_store(run, store)
    now = Run.of(recipe, run.name).record  # places may be others than when it began
    run = run.with_record(
        identity=now.identity,
        settings=now.settings,
        url=run.url,
        model=setup.shape,
        store_url=store.url,
        store_digest=store.digest,
        steps=setup.budget.steps,
    )
    run.write()
    note_use(store, run.url)
    text = config.to_yaml(recorded(recipe))
    storage.write_bytes(storage.join(run.url, "config.yaml"), text.encode())
    handle = tracked.open_entry(setup, run.record, run.url)
    if handle.enabled and run.record.tracking != handle:
        run = run.with_record(mlflow_run_id=handle.run_id, tracking_uri=handle.uri, experiment_id=handle.experiment_id)
        run.write()
    return run, handle


def finish(run: Run, handle: tracking.RunHandle, validated: dict[str, float], screen: Console) -> Run:
    """Close a pretraining here and in MLflow. validated: what validation said of the exported model."""
    validation = Validation(_first_bits(storage.join(run.url, "metrics.jsonl")), validated.get("val/bits_per_byte"))
    return close(run.with_record(validation=validation), handle, screen, _close_entry)


def close(run: Run, handle: tracking.RunHandle, screen: Console, close_entry: CloseEntry) -> Run:
    """Close a run of any kind here and, with the points that it lacks, in MLflow. close_entry: closes it there."""
    run = run.with_record(finished=True)
    in_mlflow = run.record.mlflow_run_id is None or (handle.enabled and _complete(run, handle, close_entry))
    run = run.with_record(in_mlflow=in_mlflow)
    run.write()
    if not in_mlflow:
        _warn_of_lack(run, screen)
    return run


def give_up(run: Run, handle: tracking.RunHandle, error: BaseException) -> None:
    """Say in MLflow that, and how far, the run came that this error ended."""
    last = checkpoint.latest(run.checkpoints_url)
    tracked.close_broken_entry(handle, run.record, run.url, error, step=last.step if last else 0)


def catch_up(run: Run, recipe: Recipe, screen: Console) -> None:
    """Give MLflow what it lacks of a finished pretraining because it was away at the end; says so when it still is."""
    if not recipe.tracking.enabled:
        return
    bring_up_to_date(run, screen, lambda own, handle: tracked.record_model(handle, own.record, own.url), _close_entry)


def bring_up_to_date(
    run: Run,
    screen: Console,
    record_model: Callable[[Run, tracking.RunHandle], None],
    close_entry: CloseEntry,
) -> None:
    """`catch_up` of a run of any kind. record_model: uploads and links its model; close_entry: as for `close`."""
    handle = run.record.tracking
    if run.record.in_mlflow is not False or handle is None:
        return
    with locked(run):
        record_model(run, handle)
        run = run.with_record(in_mlflow=_complete(run, handle, close_entry))
        run.write()
    if run.record.in_mlflow:
        screen.line(f"MLflow at {without_password(handle.uri)} has got what it lacked of this run")
    else:
        _warn_of_lack(run, screen)


def _close_entry(run: Run, handle: tracking.RunHandle) -> None:
    tracked.close_entry(handle, run.record, run.url)


def _warn_of_lack(run: Run, screen: Console) -> None:
    uri = without_password(str(run.record.tracking_uri))
    screen.warn(f"MLflow at {uri} lacks points of this run, which are in {run.url}; the same command sends them")


def _complete(run: Run, handle: tracking.RunHandle, close_entry: CloseEntry) -> bool:
    """Send MLflow the points that it lacks and close the run there; False when it does not take them in time."""
    with tempfile.TemporaryDirectory(prefix="glm-metrics-") as folder:
        copy = os.path.join(folder, "metrics.jsonl")  # a log is appended to, which this one is not
        storage.write_bytes(copy, storage.read_bytes(storage.join(run.url, "metrics.jsonl")))
        log = MetricLog(copy, handle, resume_step=run.record.steps)
        if not log.close(_CATCH_UP_S):
            return False
    close_entry(run, handle)
    return True


def _first_bits(metrics_url: str) -> float | None:
    """The first bits per byte that the run logged."""
    values = (point.values for point in read_points(metrics_url))
    return next((one["val/bits_per_byte"] for one in values if "val/bits_per_byte" in one), None)


def _tracking_uri(record: RunRecord, recipe: Recipe) -> str | None:
    """Where the run is in MLflow: the database that it was recorded in may have moved with it."""
    uri = record.tracking_uri
    if uri is None or not uri.startswith("sqlite:///") or storage.exists(uri.removeprefix("sqlite:///")):
        return uri
    return tracking.resolve_uri(recipe.tracking, recipe.run.storage_path) or uri


def _names_own_store(recipe: Recipe, record: RunRecord) -> bool:
    """Whether data.store or data.mix is what the run was begun on: then nothing else of data matters."""
    is_given = bool(recipe.data.store or recipe.data.mix) and record.store_digest is not None
    return is_given and open_given(recipe.data).digest == record.store_digest


def _differences(keys: list[str], before: dict[str, str], now: dict[str, str]) -> str:
    default = config.flatten(Recipe())
    was, is_ = ({key: values.get(key, default.get(key, "unset")) for key in keys} for values in (before, now))
    changes = [f"{key} was {was[key]}, is {is_[key]}" for key in keys[:6]]
    return "; ".join(changes) + (f"; and {len(keys) - 6} more" if len(keys) > 6 else "")
