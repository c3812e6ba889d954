"""What a store and a run come to, as digests: of their files alone, so that any revision may have made them."""

import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

Figures = dict[str, str]
"""What is compared -> its digest."""


def store_figures(root: Path) -> Figures:
    """The one store below a root: its name, its digest, and the bytes of its Parquet files, stored blanks included."""
    (manifest,) = root.glob("stores/*/manifest.json")
    files = sorted(manifest.parent.rglob("*.parquet"))
    content = (part for file in files for part in (str(file.relative_to(root)), file.read_bytes()))
    found = {"store name": manifest.parent.name, "store digest": json.loads(manifest.read_text())["digest"]}
    return found | {"store files": digest(content)}


def run_figures(run: Path, steps: int) -> Figures:
    """A finished run of so many steps: the identity of its settings, what was logged (speeds aside), its weights."""
    points = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = {
        (point["step"], name): float(value).hex()
        for point in points
        for name, value in point["values"].items()
        if not name.startswith(("perf/", "data/tokens", "data/epoch"))  # speeds; the step in other units
    }
    prints = {key: value for key, value in logged.items() if key[1].startswith("data/fingerprint")}
    if len(prints) != 2 * steps:
        sys.exit(f"error: expected the fingerprints of {steps} steps in {run.name}, got {len(prints) / 2:g}")
    return {
        "identity": json.loads((run / "run.json").read_text())["identity"],
        "fingerprints": digest(map(str, sorted(prints.items()))),
        "logged figures": digest(map(str, sorted(logged.items()))),
        "weights": _weights(run / "model"),
    }


def _weights(folder: Path) -> str:
    files = sorted(folder.glob("*.safetensors"))
    tensors = sorted((name, array) for file in files for name, array in load_file(file).items())
    if not tensors:
        sys.exit(f"error: there are no weights in {folder}")
    parts = ((f"{name} {array.dtype} {array.shape}", np.ascontiguousarray(array).tobytes()) for name, array in tensors)
    return digest(part for pair in parts for part in pair)


def file_times(root: Path) -> str:
    """Names, sizes and times of all files below a root."""
    files = ((file, file.stat()) for file in sorted(root.rglob("*")) if file.is_file())
    return digest(f"{file.relative_to(root)} {stat.st_size} {stat.st_mtime_ns}" for file, stat in files)


def digest(parts: Iterable[bytes | str]) -> str:
    """SHA-256 of parts in their order; no other way to cut the same bytes has it."""
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode()
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()
