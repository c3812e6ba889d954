"""Checkpoints: a folder per step, written in the background, that exists only once its manifest does.

    <url>/step-00000120/model.safetensors   weights
                        optimizer.safetensors, optimizer.json   the optimizer's state: its tensors, and everything else
                        manifest.json       files and sizes, score, and the rest of the state: step, digests, ...;
                                            written last

No pickle. The tensors are copied at once, so training goes on while they are written and uploaded. A checkpoint without
a manifest, or whose files do not match it, is skipped for the one before. On a local disk the files are synced before
the manifest is written (200 MB: 1.5 s instead of 0.5, beside training), so a power cut cannot leave a checkpoint that
only looks complete.
"""

import contextlib
import json
import math
import tempfile
import threading
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import storage
from infra.errors import DataError, InfrastructureError
from infra.storage import local as local_files

if TYPE_CHECKING:
    import torch

FORMAT = 2  # of the manifest and the files; a checkpoint of another format is refused
_PREFIX = "step-"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint."""

    url: str
    step: int
    skipped: tuple[str, ...] = ()
    """URLs of newer checkpoints that are not complete."""


@dataclass(frozen=True)
class Loaded:
    """The contents of a checkpoint, on the CPU."""

    model: "dict[str, torch.Tensor]"
    optimizer: dict[str, Any]
    """As `torch.optim.Optimizer.load_state_dict` takes it."""
    state: dict[str, Any]
    """As it was given to `save`, and its `step`."""


@dataclass(frozen=True)
class _Manifest:
    """The contents of manifest.json. Another version's may lack any of them."""

    format: int | None = None
    step: int = 0
    score: float | None = None
    files: dict[str, int] = field(default_factory=dict)
    """Name -> size in bytes."""
    state: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def read(place: str) -> "_Manifest":
        values = storage.read_json(storage.join(place, "manifest.json"))
        names = {each.name for each in fields(_Manifest)}
        return _Manifest(**{name: value for name, value in values.items() if name in names})

    def write(self, place: str) -> None:
        storage.write_json(storage.join(place, "manifest.json"), asdict(self))


class CheckpointWriter:
    """Writes a run's checkpoints, one at a time, in a thread.

    Keeps the newest `keep`, the steps that `stay`, and the one with the lowest score among those that were saved with a
    score. A score belongs to the saved weights, so the best step of a run may have no checkpoint.
    """

    def __init__(self, url: str, *, keep: int = 2, stay: Collection[int] = ()) -> None:
        self.url, self.keep, self.stay = storage.absolute(url), keep, frozenset(stay)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self,
        step: int,
        model: "dict[str, torch.Tensor]",
        optimizer: dict[str, Any],
        state: dict[str, Any],
        *,
        score: float | None = None,
    ) -> None:
        """Copy now, write in the background. Waits for the previous write, and raises its error.

        score: of the validation of exactly these weights, lower is better; None or nan if it is not known.
        """
        self.wait()
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.items()}
        tensors, rest = _split_optimizer(optimizer)
        known = score if score is not None and math.isfinite(score) else None
        arguments = (step, copies, tensors, rest, {**state, "step": step}, known)
        self._thread = threading.Thread(target=self._write, args=arguments, name="glm-checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raise the error of a write that has ended, as `wait` does, without waiting."""
        if not self.is_writing:
            self.wait()

    @property
    def is_writing(self) -> bool:
        """Whether `save` would wait."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Wait until the last checkpoint is complete. Raises InfrastructureError if it could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise InfrastructureError(
                f"a checkpoint could not be written to {self.url}: {error}",
                try_="free space or fix access, then run the same command again: it continues from the previous "
                "checkpoint",
            ) from error

    def _write(
        self, step: int, model: Any, tensors: Any, rest: Any, state: dict[str, Any], score: float | None
    ) -> None:
        from safetensors.torch import save_file

        try:
            target = _place(self.url, step)
            storage.remove_tree(target)  # a torn one of the same step
            with _new_folder(target) as folder:
                save_file(model, folder / "model.safetensors")
                save_file(tensors, folder / "optimizer.safetensors")
                (folder / "optimizer.json").write_text(json.dumps(rest))
                sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
            _Manifest(FORMAT, step, score, sizes, state).write(target)
            self._prune(step)
        except BaseException as error:
            self._error = error

    def _prune(self, newest: int) -> None:
        steps = sorted((step for step in _steps(self.url) if step <= newest), reverse=True)
        complete = {step: found for step in steps if (found := _complete(_place(self.url, step))) is not None}
        stay = self.stay & {*complete}
        scores = {step: found.score for step, found in complete.items() if found.score is not None}
        best = min(scores, key=lambda step: scores[step], default=None)
        for step in {*steps} - {*list(complete)[: self.keep], *stay, best, newest}:
            storage.remove_tree(_place(self.url, step))


def latest(url: str) -> Checkpoint | None:
    """The newest complete checkpoint, or None if there is none. Raises DataError for one of another format."""
    skipped: list[str] = []
    for step in sorted(_steps(url), reverse=True):
        place = _place(url, step)
        if _readable(place) is not None:
            return Checkpoint(place, step, tuple(skipped))
        skipped.append(place)
    return None


def best(url: str) -> Checkpoint | None:
    """The complete checkpoint with the lowest score, or None if none has a score.

    Raises DataError for complete ones of another format.
    """
    scores: dict[int, float] = {}
    for step in _steps(url):
        manifest = _readable(_place(url, step))
        if manifest and manifest.score is not None:
            scores[step] = manifest.score
    step = min(scores, key=lambda step: scores[step], default=None)
    return None if step is None else Checkpoint(_place(url, step), step)


def complete(url: str) -> list[Checkpoint]:
    """All complete checkpoints, the first step first. Raises DataError for complete ones of another format."""
    return [Checkpoint(_place(url, step), step) for step in sorted(_steps(url)) if _readable(_place(url, step))]


def read_state(url: str) -> dict[str, Any]:
    """The state that a complete checkpoint was saved with, and its `step`."""
    return _Manifest.read(url).state


def amend(url: str, state: dict[str, Any], *, score: float | None) -> None:
    """Replace the state and score of a complete checkpoint, both or neither; its tensors stay."""
    manifest = _Manifest.read(url)
    replace(manifest, score=score, state={**state, "step": manifest.step}).write(url)


def load(url: str) -> Loaded:
    """Read a complete checkpoint to the CPU."""
    from safetensors.torch import load_file

    with storage.local_copy(url) as folder:
        local = Path(folder)
        optimizer = _join_optimizer(
            load_file(local / "optimizer.safetensors"), json.loads((local / "optimizer.json").read_text())
        )
        return Loaded(load_file(local / "model.safetensors"), optimizer, read_state(url))


@contextlib.contextmanager
def _new_folder(url: str) -> Iterator[Path]:
    """An empty local folder to write to. When the `with` ends, its files are at `url` and would survive a power cut."""
    if storage.is_local(url):
        folder = Path(storage.absolute(url))
        folder.mkdir(parents=True)
        yield folder
        for path in (*folder.iterdir(), folder, folder.parent):
            local_files.sync(str(path))
        return
    with tempfile.TemporaryDirectory(prefix="glm-checkpoint-") as name:
        yield Path(name)
        storage.upload_dir(name, url)


def _place(url: str, step: int) -> str:
    return storage.join(url, f"{_PREFIX}{step:08d}")


def _steps(url: str) -> set[int]:
    if not storage.exists(url):
        return set()
    names = {info.path.split("/", 1)[0] for info in storage.list_files(url)}
    return {
        int(name.removeprefix(_PREFIX)) for name in names if name.startswith(_PREFIX) and name[len(_PREFIX) :].isdigit()
    }


def _complete(place: str) -> _Manifest | None:
    """The manifest of a checkpoint; None if it is not complete."""
    try:
        manifest = _Manifest.read(place)
    except (FileNotFoundError, DataError):
        return None
    sizes = {info.path: info.size for info in storage.list_files(place)}
    return manifest if all(sizes.get(name) == size for name, size in manifest.files.items()) else None


def _readable(place: str) -> _Manifest | None:
    """As `_complete`; raises DataError for a complete checkpoint that another version wrote."""
    manifest = _complete(place)
    if manifest is not None and manifest.format != FORMAT:
        raise DataError(
            f"the checkpoint {place} has the format {manifest.format}; this version reads {FORMAT}",
            why="another version of this program wrote it",
            try_="--run.fresh=true or another --run.name to start from scratch; use that version to continue the run",
        )
    return manifest


def _split_optimizer(optimizer: dict[str, Any]) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
    """A torch optimizer's state_dict as (tensors by `<parameter index>.<name>`, the rest as JSON)."""
    import torch

    tensors, scalars = {}, {}
    for index, values in optimizer["state"].items():
        for name, value in values.items():
            if torch.is_tensor(value):
                tensors[f"{index}.{name}"] = value.detach().to("cpu", copy=True).contiguous()
            else:
                scalars[f"{index}.{name}"] = value
    return tensors, {"param_groups": optimizer["param_groups"], "scalars": scalars}


def _join_optimizer(tensors: "dict[str, torch.Tensor]", rest: dict[str, Any]) -> dict[str, Any]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*tensors.items(), *rest["scalars"].items()]:
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": rest["param_groups"]}
