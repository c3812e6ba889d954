"""Training steps as `make pretrain` takes them, beside those of an earlier revision, interleaved.

    python benchmarks/step_rate.py --work FOLDER [--sizes tiny,mini] [--steps 12] [--rounds 5] [--json FILE]

The recipe `quickstart` with a model of each size on the store in FOLDER that `time_to_quality.py quickstart` uses,
which the earlier revision prepares where it is not there: that revision (`build`), this tree with the recipe's Muon
(`ours`), and with AdamW as the earlier revision has it (`adamw`). One worker and one thread, without Ray: the feed,
micro-batches, clipping and the optimizer. Source tokens per CPU second of each step, in turns, each round a process of
its own; medians over all steps but the first two of a round. A ratio is that median over the earlier revision's: above
1 this tree is faster. `peak_mib`: the most memory of a process. --old-python as for `time_to_quality.py`.
"""

import argparse
import itertools
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import _revision
from time_to_quality import CASES, Side, prepare

RECIPE, WARM_UP = "quickstart", 2


class Round(NamedTuple):
    """What a process did."""

    rates: list[float]
    """Source tokens per CPU second, of each step."""
    peak_mib: float


def main() -> None:
    options = _options()
    values: dict[str, float] = {}
    ratios: dict[str, float] = {}
    with _revision.checkout(options.rev) as tree:
        old, new = Side(options.old_python, tree), Side(sys.executable, _revision.ROOT)
        old.check()
        store = prepare(old, options, CASES[RECIPE], Path(options.work).resolve())
        adamw = ("--optim.name=adamw", f"--optim.lr={CASES[RECIPE].lr}")
        sides: dict[str, tuple[Side, Sequence[str]]] = {"build": (old, ()), "ours": (new, ()), "adamw": (new, adamw)}
        for size in options.sizes.split(","):
            rounds: dict[str, list[Round]] = {name: [] for name in sides}
            for number in range(options.rounds):
                for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
                    side, settings = sides[name]
                    given = (f"--model.size={size}", f"--train.steps={options.steps}", *settings)
                    rounds[name].append(run(side, given, store))
            print(f"\n{size}: source tokens per CPU second, median and quartiles; peak MiB")
            for name, found in rounds.items():
                low, median, high = statistics.quantiles([rate for one in found for rate in one.rates], n=4)
                peak_mib = max(one.peak_mib for one in found)
                values |= {f"{size}_{name}": median, f"{size}_{name}_peak_mib": peak_mib}
                print(f"{name:8} {median:8,.0f} ({low:,.0f} to {high:,.0f}) {peak_mib:8,.0f}", flush=True)
            ratios[f"{size}_vs_build"] = values[f"{size}_ours"] / values[f"{size}_build"]
            ratios[f"{size}_adamw_vs_build"] = values[f"{size}_adamw"] / values[f"{size}_build"]
            print(f"{size}: {ratios[f'{size}_vs_build']:.2f}, by AdamW {ratios[f'{size}_adamw_vs_build']:.2f}")
    if options.json:
        report = {"name": "step_rate", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": ratios}, indent=2))


def run(side: Side, settings: Sequence[str], store: str) -> Round:
    """A few steps of a new training, each of them a point of its curve (`_curve.py`)."""
    arguments = (f"--config=workflows/recipes/{RECIPE}.yaml", "--tracking.enabled=false", "--train.num_workers=1")
    with tempfile.TemporaryDirectory() as folder:
        cell = Path(folder, "cell.json")
        cell.write_text(
            json.dumps({"arguments": [*arguments, *settings], "store": store, "texts": {}, "looks_from": {}})
        )
        done = side.run([str(Path(__file__).with_name("_curve.py")), str(cell)])
        if done.returncode:
            sys.exit(f"error: {side.tree} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        points = [json.loads(line) for line in Path(folder, "curve.jsonl").read_text().splitlines()]
    took = [
        (after["tokens"] - before["tokens"]) / (after["cpu_s"] - before["cpu_s"])
        for before, after in itertools.pairwise(points[WARM_UP:])
    ]
    return Round(took, points[-1]["peak_mib"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder of the store")
    parser.add_argument("--sizes", default="tiny,mini")
    parser.add_argument("--steps", type=int, default=12, help="of a round; the first two do not count")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rev", default=_revision.BASELINE, help="the earlier revision")
    parser.add_argument("--old-python", default=sys.executable, help="interpreter for the earlier revision")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    options.case, options.sources = RECIPE, None  # of the store that is prepared
    return options


if __name__ == "__main__":
    main()
