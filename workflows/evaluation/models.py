"""The models that an evaluation names: model folders, runs, and checkpoints of runs; what each was told and began with.

runs/a              the exported model of a run, or a model folder
'runs/a-*'          those of all these runs
runs/b@step=2000    a checkpoint of a run
'runs/c@*'          all its checkpoints
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from infra import checkpoint, config, storage
from infra.errors import DataError, UserError
from workflows.runs.record import has_record, read_record
from workflows.runs.run import find_run
from workflows.settings.identity import seed_group
from workflows.settings.models import find_model, name_of
from workflows.settings.taught import read_taught

if TYPE_CHECKING:
    from glm_model import GLM, Classifier, Tokenizer


_MOST_BEFORE = 20  # models that one began with, one after the other


@dataclass(frozen=True)
class Model:
    """A model to be evaluated."""

    name: str
    url: str
    """Its folder, or that of a checkpoint."""
    tokenizer_url: str
    digest: str
    """Hex sha256 of its weights, its shape and its tokenizer."""
    run: str = ""
    """The run that it is a checkpoint of."""
    step: int | None = None
    shape: dict[str, Any] | None = None
    """The shape of a checkpoint, which does not tell it; None: config.json does."""
    started_from: str = ""
    """What its training began with; "" where nothing tells."""
    selected_by: str = ""
    """What chose these weights; "" where nothing tells."""
    seed: int | None = None
    """That of its training; None where nothing tells."""
    group: str = ""
    """Digest of all settings of its training but the seed; "" where nothing tells."""
    asked: dict[str, Any] = field(default_factory=dict)
    """task.json of a fine-tuned model: what it was taught to answer."""

    def positions(self) -> int:
        """Rows of its position tables."""
        shape = self.shape or storage.read_json(storage.join(self.url, "config.json"))
        return shape["positions"] if "positions" in shape else self.load().config.positions

    def width(self) -> int:
        """Width of its hidden states."""
        shape = self.shape or storage.read_json(storage.join(self.url, "config.json"))
        return shape["width"] if "width" in shape else self.load().config.width

    def selected_for(self, split: str) -> str:
        """What chose its weights, in words, which say so where it was the split that is reported."""
        is_reported = self.step is None and self.asked.get("selected_in") == split
        return f"{self.selected_by}: the split that is reported here" if is_reported else self.selected_by

    @property
    def has_head(self) -> bool:
        """Whether it was fine-tuned with a classification head."""
        return bool(self.asked.get("settings", {}).get("head"))

    def load(self) -> "GLM | Classifier":
        """Raises DataError for weights that cannot be read."""
        from glm_model import GLM, Classifier
        from glm_model.config import GLMConfig
        from glm_model.saved.weights import read_weights

        kind = Classifier if self.has_head else GLM
        try:
            if self.shape is None:
                return kind.from_pretrained(self.url)
            return kind.from_state(GLMConfig.from_dict(self.shape), read_weights(self.url))
        except ValueError as error:
            raise DataError(str(error)) from error

    def load_tokenizer(self) -> "Tokenizer":
        """Raises DataError for one that cannot be read."""
        from glm_model import Tokenizer

        try:
            return Tokenizer.load(self.tokenizer_url)
        except ValueError as error:
            raise DataError(str(error)) from error


def find_models(given: Sequence[str]) -> list[Model]:
    """Raises UserError where nothing is given, and DataError where there is no such model or checkpoint."""
    if not given:
        raise UserError("--models is missing", why="it names what is evaluated", try_="--models runs/<run>")
    found: list[Model] = []
    for one in given:
        place, at, which = one.partition("@")
        if at and not which.startswith(("step=", "*")):
            raise UserError(
                f"--models {one}: what stands behind @ is unknown", try_=f"{place}@step=2000, or '{place}@*'"
            )
        found += [model for match in storage.matches(place) for model in _find(match, which)]
    return found


def stores_of(model: Model) -> tuple[str, ...]:
    """The stores that a model was trained on: its run's, and those of the models that it began with. Empty where
    something of this is not known.
    """
    found, place, begun = list[str](), model.url, model.asked.get("started_from", "")
    for _ in range(_MOST_BEFORE):
        run = _parent(place) if storage.base_name(place) == "model" else _parent(_parent(place))
        record = read_record(run) if has_record(run) else None
        if record is not None and record.store_url:
            found.append(record.store_url)
        begun = begun or (_settings(run).get("model") or {}).get("init_from")
        if not begun:  # random weights
            return tuple(found)
        try:
            place = find_model(begun)
        except UserError:
            return ()
        task = storage.join(place, "task.json")
        begun = storage.read_json(task)["started_from"] if storage.exists(task) else ""
    return ()


def _parent(url: str) -> str:
    return url.rstrip("/").rpartition("/")[0]


def _find(place: str, which: str) -> list[Model]:
    """which: of a run's checkpoints, "step=2000" or "*"; "": its exported model."""
    if not which:
        url = find_model(place)
        return [_with_origin(_folder(url), url)]
    run = find_run(place)
    found = {one.step: one.url for one in checkpoint.complete(storage.join(run, "checkpoints"))}
    if which != "*":
        step = which.removeprefix("step=")
        if not step.isdecimal() or int(step) not in found:
            have = ", ".join(map(str, found)) or "none"
            raise DataError(
                f"{place} has no checkpoint of step {step}",
                why=f"it has {have}",
                try_=f"use one of these, or '{place}@*'",
            )
        found = {int(step): found[int(step)]}
    if not found:
        raise DataError(f"{place} has no checkpoint yet", try_="wait for the first one")
    return [_checkpoint(run, url, step) for step, url in found.items()]


def _folder(url: str) -> Model:
    return Model(name_of(url), url, url, _digest(url, url), asked=read_taught(url))


def _checkpoint(run: str, url: str, step: int) -> Model:
    record = read_record(run)
    if record.model is None:
        raise DataError(f"the run {run} says no shape of its model", try_="give its model folder")
    exported = storage.join(run, "model")
    begun = (_settings(run).get("model") or {}).get("init_from")  # a fine-tuning has no store
    places = [place for place in (exported, record.store_url, begun) if place and _has_tokenizer(place)]
    if not places:
        raise DataError(
            f"the tokenizer of the run {run} is gone",
            why=f"neither {exported} is there, nor what it began with: {record.store_url or begun}",
            try_="bring that folder back",
        )
    shape = record.model.to_dict()
    return _with_origin(
        Model(
            name=f"{storage.base_name(run)}@step={step}",
            url=url,
            tokenizer_url=places[0],
            digest=_digest(url, places[0], shape),
            run=storage.base_name(run),
            step=step,
            shape=shape,
            asked=read_taught(exported),
        ),
        exported,
    )


def _has_tokenizer(url: str) -> bool:
    return storage.exists(storage.join(url, "tokenizer.json"))


def _with_origin(model: Model, model_url: str) -> Model:
    """What the run around a model folder tells of it."""
    run = _parent(model_url)
    model = _with_seed(model, run if storage.base_name(model_url) == "model" else "")
    selected = "a step that was named" if model.step is not None else ""
    if model.asked:  # a fine-tuned model tells it itself, wherever it lies
        begun, chose = model.asked.get("started_from", ""), model.asked.get("selected_on", "")
        return replace(model, started_from=begun, selected_by=selected or chose)
    if storage.base_name(model_url) != "model" or not has_record(run):
        return replace(model, selected_by=selected)
    begun = (_settings(run).get("model") or {}).get("init_from") or "random weights"
    return replace(model, started_from=begun, selected_by=selected or "last step")


def _with_seed(model: Model, run: str) -> Model:
    """The seed, and the digest of what is equal for all seeds, as a fine-tuned model or the run around it tells them.
    run: "" where there is none around it.
    """
    if "group" in model.asked:
        return replace(model, seed=int(model.asked["seed"]), group=model.asked["group"])
    settings = read_record(run).settings if run and has_record(run) else {}
    if "train.seed" not in settings:
        return model
    return replace(model, seed=int(settings["train.seed"]), group=seed_group(settings))


def _settings(run: str) -> dict[str, Any]:
    """The recipe of a run."""
    place = storage.join(run, "config.yaml")
    return config.mapping_from_yaml(storage.read_bytes(place).decode()) if storage.exists(place) else {}


def _digest(weights_url: str, tokenizer_url: str, shape: dict[str, Any] | None = None) -> str:
    found = hashlib.sha256(str(sorted((shape or {}).items())).encode())
    names = [info.path for info in storage.list_files(weights_url) if info.path.endswith((".safetensors", ".bin"))]
    files = [storage.join(weights_url, name) for name in names if not name.startswith("optimizer")]
    files += [storage.join(weights_url, "config.json")] if shape is None else []
    for url in [*files, storage.join(tokenizer_url, "tokenizer.json")]:
        with storage.open_file(url) as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()
