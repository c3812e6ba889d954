"""Checkpoints: a folder per step, written in the background, that exists only once its manifest does.

    <url>/step-00000120/model.safetensors   weights
                        optimizer.safetensors, optimizer.json   optimizer state: tensors, and everything that is none
                        manifest.json       files and sizes, score, and the rest of the state: step, digests, ...;
                                            written last

No pickle. A copy of the tensors is taken at once, so training goes on while they are written and uploaded; a checkpoint
without manifest, or whose files do not match it, is skipped for the one before. On a disk of this machine the files are
synced before the manifest is written (200 MB: 1.5 s instead of 0.5, beside training), so a power cut leaves none that
only looks complete.
"""

import contextlib
import json
import math
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from infra import storage
from infra.errors import DataError, InfrastructureError
from infra.storage import local as local_files

if TYPE_CHECKING:
    import torch

FORMAT = 2  # of what the manifest and the files hold; another one is refused
_PREFIX = "step-"


class Found(NamedTuple):
    """A complete checkpoint; skipped: URLs of newer ones that are not."""

    url: str
    step: int
    skipped: list[str]


class Loaded(NamedTuple):
    model: "dict[str, torch.Tensor]"
    optimizer: dict[str, Any]
    state: dict[str, Any]


class Checkpoints:
    """Writer of a run's checkpoints: one at a time, in a thread.

    Keeps the newest `keep`, and the one with the lowest score among those that were saved with one: a score belongs to
    the weights that are saved, so the best step of a run need not be among them.
    """

    def __init__(self, url: str, *, keep: int = 2) -> None:
        self.url, self.keep = storage.absolute(url), keep
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
        """Copy now, write in the background. Waits for the write before it; raises what went wrong with that one.

        score: validation of exactly these weights, lower is better; None (or nan): not known.
        """
        self.wait()
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.items()}
        tensors, rest = _split_optimizer(optimizer)
        known = score if score is not None and math.isfinite(score) else None
        arguments = (step, copies, tensors, rest, {**state, "step": step}, known)
        self._thread = threading.Thread(target=self._write, args=arguments, name="glm-checkpoint")
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong with a write that has ended, as `wait` does; waits for none."""
        if not self.is_writing:
            self.wait()

    @property
    def is_writing(self) -> bool:
        """Whether `save` would wait."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Until the last checkpoint is complete. Raises InfrastructureError when it could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise InfrastructureError(
                f"a checkpoint could not be written to {self.url}: {error}",
                try_="free space or fix access, then start the same command again: it continues from the "
                "checkpoint before",
            ) from error

    def _write(
        self, step: int, model: Any, tensors: Any, rest: Any, state: dict[str, Any], score: float | None
    ) -> None:
        from safetensors.torch import save_file

        try:
            target = _place(self.url, step)
            storage.remove_tree(target)  # a torn one of the same step
            with _made(target) as folder:
                save_file(model, folder / "model.safetensors")
                save_file(tensors, folder / "optimizer.safetensors")
                (folder / "optimizer.json").write_text(json.dumps(rest))
                sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
            manifest = {"format": FORMAT, "step": step, "score": score, "files": sizes, "state": state}
            storage.write_json(storage.join(target, "manifest.json"), manifest)
            self._prune(step)
        except BaseException as error:
            self._error = error

    def _prune(self, newest: int) -> None:
        steps = sorted((step for step in _steps(self.url) if step <= newest), reverse=True)
        complete = {step: found for step in steps if (found := _manifest(_place(self.url, step))) is not None}
        scores = {step: found["score"] for step, found in complete.items() if found.get("score") is not None}
        best = min(scores, key=lambda step: scores[step], default=None)
        for step in {*steps} - {*list(complete)[: self.keep], best, newest}:
            storage.remove_tree(_place(self.url, step))


def latest(url: str) -> Found | None:
    """The newest complete checkpoint, or None when there is none. Raises DataError for one of another format."""
    skipped = []
    for step in sorted(_steps(url), reverse=True):
        place = _place(url, step)
        if _readable_manifest(place) is not None:
            return Found(place, step, skipped)
        skipped.append(place)
    return None


def best(url: str) -> Found | None:
    """The complete checkpoint with the lowest score, or None when none has one. Raises DataError for complete ones of
    another format.
    """
    scores: dict[int, float] = {}
    for step in _steps(url):
        found = _readable_manifest(_place(url, step))
        if found and found.get("score") is not None:
            scores[step] = found["score"]
    step = min(scores, key=lambda step: scores[step], default=None)
    return None if step is None else Found(_place(url, step), step, [])


def read_state(url: str) -> dict[str, Any]:
    """The `state` that a complete checkpoint was saved with, and its `step`."""
    return storage.read_json(storage.join(url, "manifest.json"))["state"]


def amend(url: str, state: dict[str, Any], *, score: float | None) -> None:
    """Give a complete checkpoint another state and score, at once or not at all; its tensors stay."""
    place = storage.join(url, "manifest.json")
    manifest = storage.read_json(place)
    storage.write_json(place, {**manifest, "score": score, "state": {**state, "step": manifest["step"]}})


def load(url: str) -> Loaded:
    """Read a complete checkpoint to CPU."""
    from safetensors.torch import load_file

    with storage.local_copy(url) as folder:
        local = Path(folder)
        optimizer = _join_optimizer(
            load_file(local / "optimizer.safetensors"), json.loads((local / "optimizer.json").read_text())
        )
        return Loaded(load_file(local / "model.safetensors"), optimizer, read_state(url))


@contextlib.contextmanager
def _made(url: str) -> Iterator[Path]:
    """An empty folder to be written: the one at `url` where it is local, else one that is uploaded to there. Durable
    afterwards.
    """
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


def _manifest(place: str) -> dict[str, Any] | None:
    """What a checkpoint says of itself; None when it is not complete."""
    try:
        manifest = storage.read_json(storage.join(place, "manifest.json"))
    except (FileNotFoundError, DataError):
        return None
    sizes = {info.path: info.size for info in storage.list_files(place)}
    return manifest if all(sizes.get(name) == size for name, size in manifest.get("files", {}).items()) else None


def _readable_manifest(place: str) -> dict[str, Any] | None:
    """`_manifest`; raises DataError for a complete checkpoint that another version wrote."""
    manifest = _manifest(place)
    if manifest is not None and manifest.get("format") != FORMAT:
        raise DataError(
            f"the checkpoint {place} has the format {manifest.get('format')}; this version reads {FORMAT}",
            why="another version of this program wrote it",
            try_="--run.fresh=true, to start the run anew, or another --run.name; or that version, to continue it",
        )
    return manifest


def _split_optimizer(optimizer: dict[str, Any]) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
    """(tensors by `<parameter index>.<name>`, the rest as JSON) of a torch optimizer's state_dict."""
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
