"""A prediction that is killed (SIGKILL) several times ends with every row once, labelled as one pass labels it.

    python benchmarks/predict_killed.py [--rows 1000000] [--tokens 20] [--size tiny] [--kills 3] [--check 10000]
                                        [--num-workers 1] [--shard-rows 4096] [--json FILE]

Starts the command `predict.py` on a Parquet file of rows of so many tokens, kills the driver with all its processes
when another share of the output files is there, and starts the same command again; the last one runs to its end. Then
every row must be there once and in order, and the shares and labels of the first rows must be those of one plain pass
in this process. Ends with code 1 where something differs. `peak_mib` is the highest memory of a process of the command.
"""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _predictions
import numpy as np
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
_SAME = 1e-5  # shares that lie nearer than this are equal, and labels of which neither is likelier


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _predictions.make(folder, rows=options.rows, tokens=options.tokens, size=options.size)
        shards = -(-options.rows // options.shard_rows)
        began = time.perf_counter()
        for number in range(1, options.kills + 1):
            _kill_at(_start(options, folder), folder / "out", number * shards // (options.kills + 1))
        _finish(_start(options, folder))
        seconds = time.perf_counter() - began
        problems = _problems(options, folder)
        values = {
            "rows": options.rows,
            "kills": options.kills,
            "seconds": seconds,
            "peak_mib": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
            "problems": len(problems),
        }
    for key, value in values.items():
        print(f"{key:9} {value:,.1f}" if isinstance(value, float) else f"{key:9} {value:,}")
    if options.json:
        report = {"name": "predict_killed", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps({**report, "values": values, "ratios": {}}, indent=2))
    if problems:
        sys.exit("error: " + "; ".join(problems))
    print(f"every row once; the labels of {min(options.check, options.rows):,} are those of one pass")


def _start(options: argparse.Namespace, folder: Path) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "workflows" / "predict.py"), f"--model={folder}/model"]
    command += [f"--input={folder}/in.parquet", f"--to={folder}/out", f"--shard_rows={options.shard_rows}"]
    command += [f"--num_workers={options.num_workers}", "--console.quiet=true"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)


def _kill_at(process: subprocess.Popen, out: Path, files: int) -> None:
    """Kill it with all its processes when so many output files are there."""
    while process.poll() is None and sum(1 for _ in out.glob("*.parquet")) < files:
        time.sleep(0.02)
    if process.poll() is not None:
        sys.exit(f"error: the command ended with code {process.returncode} before {files} files were there")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _finish(process: subprocess.Popen) -> None:
    if code := process.wait():
        sys.exit(f"error: the command ended with code {code}")


def _problems(options: argparse.Namespace, folder: Path) -> list[str]:
    """What differs from every row once, in order, with the shares and labels of a plain pass."""
    found, total = [], 0
    checked: list[dict] = []
    for file in sorted((folder / "out").glob("*.parquet")):
        part = pq.read_table(file)
        if part["id"].to_pylist() != [*range(total, total + len(part))]:
            found.append(f"the rows of {file.name} are not those behind row {total:,}")
        if part["label"].null_count:
            found.append(f"{part['label'].null_count:,} rows of {file.name} have no label")
        checked += part.slice(0, max(options.check - total, 0)).to_pylist()
        total += len(part)
    if total != options.rows:
        found.append(f"{total:,} rows instead of {options.rows:,}")
    names = [*_predictions.WORDS]
    alone = _predictions.shares(f"{folder}/model", [row["text"] for row in checked])
    ours = np.array([[row[f"p_{name}"] for name in names] for row in checked])
    if not np.allclose(ours, alone, rtol=0, atol=_SAME):
        found.append(f"shares differ by up to {np.abs(ours - alone).max():.2g}")
    differing = [
        row["id"]
        for row, share in zip(checked, alone, strict=True)
        if row["label"] != names[share.argmax()] and np.ptp(share) > 2 * _SAME
    ]
    if differing:
        found.append(f"{len(differing):,} of {len(checked):,} labels differ, the first one of row {differing[0]}")
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--tokens", type=int, default=20, help="of each row")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--check", type=int, default=10_000, help="rows whose labels are compared")
    parser.add_argument("--num-workers", type=int, default=1)
    parser.add_argument("--shard-rows", type=int, default=4096)
    parser.add_argument("--json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
