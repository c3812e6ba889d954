"""What Ray Train and checkpoints cost a training: the same loop under Ray Train and under plain `torchrun`.

    python benchmarks/overhead.py --store runs/data/stores/<key> [--size tiny] [--workers 2] [--steps 60] [--rounds 5]
        [--json FILE]

Both run `Worker` of workflows/training, which reads, draws, computes, exchanges gradients and updates. Under Ray Train
it also does what a run does for its user: asks whether to stop and whether a node leaves, logs each tenth step and
tells the driver. Each round starts both, one after the other, in turns which first, and takes the median step after a
warm-up. `overhead` is the mean over rounds of log(Ray / plain), with its 95 % interval (Student's t). `checkpoint_s` is
what a step waits for a checkpoint (its copy; it is written in the background), `slowed_s` what the steps beside the
writing lose, and `checkpoint_share` both over the time between two checkpoints, --checkpoint-every steps.
`watchdog_beat_s` is what a micro-batch waits for the watchdog.
"""

import argparse
import json
import math
import os
import pickle
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workflows.training.job import Job

os.environ.setdefault("OMP_NUM_THREADS", "1")
_WARM_UP = 10  # steps
_T95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}  # two-sided, n - 1 degrees


def main() -> None:
    options = _options()
    if options.plain:
        _plain(Path(options.plain))
        return
    from infra.cluster import connect

    job, recipe = _job(options)
    joined = connect.connect(connect.ClusterConfig(), min_cpus=options.workers + 1)
    rounds: list[dict[str, dict[str, float]]] = []
    try:
        for number in range(options.rounds):
            order = [("ray", _under_ray), ("plain", _under_torchrun)]
            found = {name: measure(job, recipe) for name, measure in (order if number % 2 else order[::-1])}
            rounds.append(found)
            ratio = found["ray"]["step_s"] / found["plain"]["step_s"]
            seconds = " against ".join(f"{found[name]['step_s']:.4f} s" for name in ("ray", "plain"))
            print(f"round {number + 1}: {seconds}, {ratio:.3f}")
    finally:
        connect.shutdown(joined)
    _report(rounds, options)


def _report(rounds: list[dict[str, dict[str, float]]], options: argparse.Namespace) -> None:
    logs = [math.log(found["ray"]["step_s"] / found["plain"]["step_s"]) for found in rounds]
    half = _T95[len(logs)] * statistics.stdev(logs) / math.sqrt(len(logs))
    mean = statistics.fmean(logs)
    values = {
        f"{name}_{key}": statistics.median(found[name][key] for found in rounds)
        for name in ("ray", "plain")
        for key in rounds[0][name]
    }
    values["watchdog_beat_s"] = _beat_s()
    stall = values["ray_checkpoint_s"] + max(0.0, values["ray_slowed_s"])
    values["checkpoint_share"] = stall / (options.checkpoint_every * values["ray_step_s"])
    ratios = {"overhead": math.exp(mean), "overhead_low": math.exp(mean - half), "overhead_high": math.exp(mean + half)}
    for name, value in values.items():
        print(f"{name:24} {value:10.6f}")
    low, middle, high = (ratios[key] for key in ("overhead_low", "overhead", "overhead_high"))
    print(f"Ray Train / torchrun: {middle:.3f} ({low:.3f} to {high:.3f})")
    if options.json:
        report = {"name": "overhead", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": ratios}, indent=2))


def _beat_s() -> float:
    from infra.cluster.watchdog import Watchdog

    watchdog, beats = Watchdog(900.0), 1000
    began_at = time.perf_counter()
    for _ in range(beats):
        watchdog.beat()
    took_s = time.perf_counter() - began_at
    watchdog.close()
    return took_s / beats


def time_steps(job: "Job", ranks: Any = None) -> dict[str, float]:
    """Steps, then a checkpoint and steps beside its writing; medians in seconds."""
    import torch

    from workflows.training.worker import Worker

    torch.manual_seed(0)
    w = Worker(job, ranks)
    took_s, beside_s, checkpoint_s = [], [], 0.0
    last_at = time.perf_counter()
    for item in w.steps():
        taken, _ = w.advance(item)
        if w.every(10):
            w.telemetry.log_step(w.engine, taken)
        now = time.perf_counter()
        (beside_s if checkpoint_s else took_s).append(now - last_at)
        if w.step == w.job.steps - 10:
            w.save()
            checkpoint_s = time.perf_counter() - now
        last_at = time.perf_counter()
    w.close()
    step_s = statistics.median(took_s[_WARM_UP:])
    slowed_s = sum(beside_s) - step_s * len(beside_s)
    return {"step_s": step_s, "checkpoint_s": checkpoint_s, "slowed_s": slowed_s}


# -- the two ways ------------------------------------------------------------------------------------------------------


def _worker(report: str, job: "Job") -> None:
    import ray.train

    found = time_steps(job)
    if ray.train.get_context().get_world_rank() == 0:
        Path(report).write_text(json.dumps(found))


def _under_ray(job: "Job", recipe: Any) -> dict[str, float]:
    from infra.cluster.link import Link
    from infra.cluster.train_workers import run_workers

    with tempfile.TemporaryDirectory() as folder:
        name = f"overhead-{time.time_ns()}"
        link = Link.create(name)
        report = f"{folder}/found.json"
        run_workers(
            partial(_worker, report),
            _in_folder(job, folder, link=name),
            recipe.train,
            name="overhead",
            storage_path=folder,
            poll=link.poll,
            stop=link.request_stop,
        )
        return json.loads(Path(report).read_text())


def _under_torchrun(job: "Job", recipe: Any) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "job.pickle").write_bytes(pickle.dumps(_in_folder(job, folder, link=None)))
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={recipe.train.max_workers}"]
        here = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *sys.path])
        command = [sys.executable, *launcher, __file__, "--plain", folder]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONPATH": here}, capture_output=True, timeout=900)
        return json.loads(Path(folder, "found.json").read_text())


def _plain(folder: Path) -> None:
    import torch
    import torch.distributed as dist

    from workflows.training.ranks import Ranks

    dist.init_process_group("gloo")
    ranks = Ranks(dist.get_rank(), dist.get_world_size(), torch.device("cpu"))
    found = time_steps(pickle.loads((folder / "job.pickle").read_bytes()), ranks)
    if ranks.rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def _in_folder(job: "Job", folder: str, *, link: str | None) -> "Job":
    return replace(job, run_url=folder, checkpoints_url=f"{folder}/checkpoints", link=link)


def _job(options: argparse.Namespace) -> tuple["Job", Any]:
    from infra import config
    from infra.console import Console
    from infra.tracking import NOT_TRACKED
    from pipelines.store.format import TokenStore
    from workflows.runs.launch import job_of
    from workflows.runs.run import Run
    from workflows.runs.setup import resolve_setup
    from workflows.settings.recipe import Recipe

    settings = {
        "data.store": options.store,
        "model.size": options.size,
        "train.num_workers": options.workers,
        "train.steps": options.steps + _WARM_UP + 10,
        "train.batch_tokens": options.batch_tokens,
        "train.precision": "fp32",
        "optim.warmup_fraction": 0.1,
    }
    words = [f"--{key}={value}" for key, value in settings.items()]
    recipe = config.parse(Recipe, description="", argv=words).config
    store = TokenStore.open(options.store)
    recipe.blanks = type(recipe.blanks)(**store.manifest.packed_for)
    setup = resolve_setup(recipe, store, Console())
    return job_of(setup, Run.of(recipe, "overhead"), NOT_TRACKED, link=None), recipe


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", help="a finished token store")
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-tokens", type=int, default=16_000)
    parser.add_argument("--steps", type=int, default=60, help="that are timed, in each round")
    parser.add_argument("--rounds", type=int, default=5, choices=sorted(_T95))
    parser.add_argument("--checkpoint-every", type=int, default=50, help="steps between checkpoints, of wiki_mini.yaml")
    parser.add_argument("--plain", help=argparse.SUPPRESS)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    if not options.store and not options.plain:
        parser.error("--store is needed")
    return options


if __name__ == "__main__":
    main()
