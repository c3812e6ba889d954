"""CPU-seconds of training until held-out text costs as few bits per byte as at the end of an earlier revision's run.

    python benchmarks/time_to_quality.py quickstart --work FOLDER [--seeds 3] [--curves FILE] [--json FILE]
    python benchmarks/time_to_quality.py wiki_mini --work FOLDER --sources '[{reader: wikiextractor, url: ...}]'

Both sides train the case's recipe on one store, which the earlier revision prepares: c1f8ea3 as its recipe says, and
this tree with its own recipe and the length below. One process and one thread each, without Ray. The target is the mean
over seeds of what the earlier revision ends at; it counts as reached at the first evaluation (every 2 % of a run) from
which a curve stays below it. Lengths, rates and other settings were chosen on the validation split; the ratio is taken
on the test split. A third side is the earlier revision with the best of three learning rates, chosen on validation.

--try runs this tree's recipe once with other settings and prints what it ends at on the validation split: what the
lengths, rates and schedule of the recipe were chosen by (docs/lab.md).

Runs are cells of FOLDER: finished ones are kept, a stopped one goes on from its last evaluation, and --minutes stops
between two and within one. --curves keeps the finished curves in a file, from which those of the earlier revision are
taken when they are there. --old-python: the interpreter of an environment with what that revision needs (c1f8ea3:
`jsonargparse[signatures]` besides).
"""

import argparse
import hashlib
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _revision
import numpy as np
import torch
from safetensors.torch import save_file

from glm_model import Tokenizer
from pipelines.blanks.mixture import BlanksConfig
from pipelines.feed.examples import feed_settings
from pipelines.feed.micro_batches import RowReader
from pipelines.feed.order import RowPlaces
from pipelines.store.format import Split, TokenStore

Points = list[dict[str, Any]]
RATES = (0.5, 1.0, 2.0)  # times the recipe's
_LOOKS_FROM = 0.7  # of a run: the test split costs more than the steps between two evaluations


@dataclass(frozen=True)
class Case:
    """A recipe, and what both sides add to it."""

    lr: float
    """The earlier recipe's."""
    old: tuple[str, ...]
    new: tuple[str, ...]
    data: tuple[str, ...]
    """For the store: 1 MB and more of test text."""


CASES = {
    "quickstart": Case(
        lr=2e-3,
        old=(),
        new=("--train.tokens=0.85M", "--train.batch_tokens=4k"),
        data=("--data.test_fraction=0.06", "--data.validation_fraction=0.015"),
    ),
    # 3.6M tokens: some 20 minutes of two cores for the earlier revision.
    "wiki_mini": Case(
        lr=1e-3,
        old=("--train.tokens=3.6M",),
        new=("--train.tokens=0.72M", "--train.batch_tokens=8k"),
        data=("--data.test_fraction=0.03", "--data.validation_fraction=0.01"),
    ),
}


@dataclass(frozen=True)
class Cell:
    """One run: a side ("old", "new", or "old" with another rate) and a seed."""

    case: str
    side: str
    seed: int
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.case} {self.side} {self.seed}"


def main() -> None:
    options = _options()
    case, until = CASES[options.case], time.monotonic() + 60 * options.minutes
    work = Path(options.work).resolve()
    with _revision.checkout(options.rev) as tree:
        old = Side(options.old_python, tree)
        old.check()
        store = prepare(old, options, case, work)
        texts = {split: write_text(store, split, work / f"{split}.safetensors") for split in ("validation", "test")}
        if options.tried:
            cell = try_cell(options.case, options.tried)
            points = run(Side(sys.executable, _revision.ROOT), cell, store, texts, work, until)
            sys.exit("stopped" if points is None else shown(cell, points))
        curves = json.loads(Path(options.curves).read_text()) if Path(options.curves).exists() else {}
        for cell in cells_of(options.case, case, options.seeds, one_rate=options.one_rate):
            if cell.name not in curves:
                side = Side(sys.executable, _revision.ROOT) if cell.side == "new" else old
                points = run(side, cell, store, texts, work, until)
                if points is None:
                    sys.exit(f"stopped at {cell.name} after {options.minutes:g} minutes: the same command goes on")
                curves[cell.name] = points
                Path(options.curves).write_text(json.dumps(curves, indent=1))
                print(f"{cell.name}: {points[-1]['cpu_s']:.0f} CPU-s, test {points[-1]['test']:.4f}", flush=True)
    values, ratio = compare(options.case, curves, options.seeds)
    if options.json:
        report = {"name": "time_to_quality", "machine": platform.processor() or platform.machine()}
        ratios = {options.case: ratio}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": ratios}, indent=2))


# -- what is run -------------------------------------------------------------------------------------------------------


def cells_of(name: str, case: Case, seeds: int, *, one_rate: bool = False) -> list[Cell]:
    """All runs: of each seed old and new, and of the first seed the other rates of the earlier revision."""
    config = f"--config=workflows/recipes/{name}.yaml"
    common = [
        (seed, (config, "--tracking.enabled=false", "--train.num_workers=1", f"--train.seed={1234 + seed}"))
        for seed in range(seeds)
    ]
    sides = {"old": case.old, "new": case.new}  # alternately: what else the machine does meets both
    cells = [Cell(name, side, seed, (*shared, *own)) for seed, shared in common for side, own in sides.items()]
    rated = [
        Cell(name, f"old, rate {times:g}", 0, (*cells[0].arguments, f"--optim.lr={case.lr * times:g}"))
        for times in RATES
        if times != 1 and not one_rate
    ]
    return [*cells, *rated]


def try_cell(name: str, settings: str) -> Cell:
    """This tree's recipe with other settings, as on a command line."""
    key = hashlib.sha256(settings.encode()).hexdigest()[:8]
    (new,) = [cell for cell in cells_of(name, CASES[name], 1, one_rate=True) if cell.side == "new"]
    return Cell(name, f"tried {key}", 0, (*new.arguments, *settings.split()))


def shown(cell: Cell, points: Points) -> None:
    """Print where a tried run ended."""
    last = points[-1]
    print(f"{cell.side}: {last['cpu_s']:.0f} CPU-s, {last['tokens']:,} tokens, validation {last['validation']:.4f}")


@dataclass(frozen=True)
class Side:
    """A tree, and the interpreter that runs it."""

    python: str
    tree: Path

    def check(self) -> None:
        """End the program where the interpreter lacks what the tree needs."""
        code = "import infra.config, workflows.pretrain; infra.config._parser()"
        done = self.run(["-c", code]) if (self.tree / "infra/config.py").exists() else None
        if done and done.returncode:
            sys.exit(f"error: {self.python} cannot run {self.tree}\n{done.stderr}  try: --old-python, as --help says")

    def run(self, words: list[str], *, timeout_s: float | None = None) -> subprocess.CompletedProcess:
        environment = _revision.environment(self.tree)
        return subprocess.run(
            [self.python, *words], cwd=self.tree, env=environment, capture_output=True, text=True, timeout=timeout_s
        )


def prepare(side: Side, options: argparse.Namespace, case: Case, work: Path) -> str:
    """The store of a case, prepared by this side where it is not there yet."""
    root = work / "data"
    if not list(root.glob("stores/*/manifest.json")):
        sources = [f"--data.sources={options.sources}"] if options.sources else []
        config = f"--config=workflows/recipes/{options.case}.yaml"
        words = [config, f"--data.root={root}", "--tracking.enabled=false", *case.data, *sources]
        done = side.run(["workflows/prepare.py", *words])
        if done.returncode:
            sys.exit(f"error: the store could not be prepared\n{done.stdout}{done.stderr}")
    (manifest,) = root.glob("stores/*/manifest.json")
    return str(manifest.parent)


def write_text(url: str, split_name: str, file: Path) -> Path:
    """A held-out split as both sides read it, from left to right: the rows laid out, and how many bytes they hold."""
    if file.exists():
        return file
    store = TokenStore.open(url)
    form = BlanksConfig(mixture="gpt", mask_tokens="task")
    settings = feed_settings(store, Tokenizer.load(url), form, split=split_name)
    split: Split = getattr(store, split_name)
    rows: list[dict[str, np.ndarray]] = []
    num_bytes = 0
    for group, count in enumerate(split.group_rows.tolist()):
        places = RowPlaces(np.zeros(count, np.int64), np.full(count, group), np.arange(count))
        reader = RowReader(split, settings)
        rows.append(reader.micro_batch(places).example.arrays())
        num_bytes += int(reader.read(places)[0].num_bytes.sum())
    if not rows:
        sys.exit(f"error: no document fell into the {split_name} split\n  try: a corpus of more documents")
    known = store.manifest.sources
    unknown = num_bytes * sum(s.unknown_bytes or 0 for s in known) / max(sum(s.num_bytes for s in known), 1)
    joined = {name: torch.from_numpy(np.concatenate([part[name] for part in rows])).int() for name in rows[0]}
    save_file(joined | {"bytes": torch.tensor([num_bytes, unknown], dtype=torch.float64)}, file)
    print(f"{split_name}: {num_bytes / 1e6:.2f} MB", flush=True)
    return file


def run(side: Side, cell: Cell, store: str, texts: dict[str, Path], work: Path, until: float) -> Points | None:
    """The curve of a cell, which goes on from where it was stopped; None when the time is over before its end."""
    folder = work / "cells" / cell.name.replace(", ", "-").replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    given = {"arguments": cell.arguments, "store": store, "texts": {k: str(v) for k, v in texts.items()}}
    looks = {"validation": 1.0}
    if not cell.side.startswith("tried"):  # which chooses, and is not told what is reported
        looks["test"] = 1.0 if cell.side == "old" else _LOOKS_FROM  # of the target the end counts
    (folder / "cell.json").write_text(json.dumps(given | {"looks_from": looks}, indent=1))
    script = str(Path(__file__).with_name("_curve.py"))
    try:
        left_s = None if math.isinf(until) else max(until - time.monotonic(), 1)
        done = side.run([script, str(folder / "cell.json")], timeout_s=left_s)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        sys.exit(f"error: {cell.name} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]


# -- what came of it ---------------------------------------------------------------------------------------------------


def reached(points: Points, target: float) -> dict[str, Any] | None:
    """The first point with a test score from which all are at most the target; None where the last one is above."""
    found = None
    for point in reversed([point for point in points if "test" in point]):
        if point["test"] > target:
            break
        found = point
    return found


def compare(name: str, curves: dict[str, Points], seeds: int) -> tuple[dict[str, float], float]:
    """(values, CPU-seconds new / old), printed as a table."""
    old = [curves[f"{name} old {seed}"] for seed in range(seeds)]
    new = [curves[f"{name} new {seed}"] for seed in range(seeds)]
    others = {times: f"{name} old, rate {times:g} 0" for times in RATES}
    rated = {times: curves[cell] for times, cell in others.items() if cell in curves} | {1.0: old[0]}
    target = statistics.fmean(points[-1]["test"] for points in old)
    old_s = statistics.median(points[-1]["cpu_s"] for points in old)
    best = min(rated, key=lambda times: rated[times][-1]["validation"])
    print(f"{name}: {target:.4f} bits per byte of the test split, which c1f8ea3 reaches in {old_s:.0f} CPU-s")
    print(f"{'':28} {'parameters':>10} {'tokens':>8} {'CPU-s':>7} {'of old':>7}  at its end")
    sides = {f"old, seed {seed}": points for seed, points in enumerate(old)}
    sides |= {f"new, seed {seed}": points for seed, points in enumerate(new)}
    sides |= {f"old, rate times {times:g}": points for times, points in rated.items() if times != 1}
    for label, points in sides.items():
        at = points[-1] if label.startswith("old, seed") else reached(points, target)
        shown = (
            f"{at['tokens'] / 1e6:7.2f}M {at['cpu_s']:7.0f} {at['cpu_s'] / old_s:7.2f}"
            if at
            else f"{'not reached':>24}"
        )
        print(f"{label:28} {points[0]['parameters']:10,} {shown}  {points[-1]['test']:.4f}")
    times = [(found := reached(points, target)) and found["cpu_s"] for points in new]
    ratios = sorted(one / old_s if one else math.inf for one in times)
    tuned = reached(rated[best], target)
    values = {
        "target_bits_per_byte": target,
        "old_cpu_s": old_s,
        "ratio_low": ratios[0],
        "ratio_high": ratios[-1],
        "best_adamw_rate": best,
        "best_adamw_ratio": tuned["cpu_s"] / old_s if tuned else math.inf,
    }
    ratio = statistics.median(ratios)
    print(
        f"new / old: {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); old with the best of three rates, "
        f"{best:g} times its own: {values['best_adamw_ratio']:.2f}"
    )
    return values, ratio


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=list(CASES))
    parser.add_argument("--work", required=True, help="folder of the store and the cells of this case")
    parser.add_argument("--curves", help="JSON file of finished curves; default: curves.json in the folder")
    parser.add_argument("--sources", help="of the text, instead of the recipe's: YAML as data.sources has it")
    parser.add_argument("--rev", default=_revision.BASELINE, help="the earlier revision")
    parser.add_argument("--old-python", default=sys.executable, help="interpreter for the earlier revision")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--try", dest="tried", help="settings of one more run: '--optim.lr=4e-3 --train.tokens=1.4M'")
    parser.add_argument("--one-rate", action="store_true", help="leave out the earlier revision's other rates")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    options.curves = options.curves or str(Path(options.work) / "curves.json")
    return options


if __name__ == "__main__":
    main()
