"""Whether this tree is as fast as an earlier revision: six benchmarks of both, in turns.

    python benchmarks/same_speed.py [REV] --source enwiki_wikiextractor --vocabulary vocab.txt [--rounds 9]
        [--only step,ingest] [--json FILE]

Each round runs every benchmark in both trees, one after the other, in turns which first, each tree its own script with
the same small settings. A ratio is speed, new / old: the median over rounds, with its 95 % interval (order statistics);
above 1 this tree is faster. `store` writes and reads rows, `ingest` reads a store's micro-batches, `objective` draws
and lays out blanks, `step` trains, `prepare` makes a store of raw text, `generate` writes a text. The store that is
read is prepared once, by the earlier revision.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import _revision
from startup import outer_rank


class Figure(NamedTuple):
    """A value of a benchmark's JSON; is_speed: more of it is better, as of tokens per second."""

    name: str
    is_speed: bool


BENCHMARKS: dict[str, tuple[list[str], list[Figure]]] = {
    "objective": (["--segments=2048", "--rounds=5"], [Figure("plan_us", False), Figure("expand_us", False)]),
    "store": (
        ["--source={source}", "--vocabulary={vocabulary}", "--rounds=1", "--scan-mtok=200"],
        [Figure("write_cpu_s", False), Figure("read_mtok_per_cpu_s", True)],
    ),
    "step": (["--size=tiny", "--segments=8", "--rounds=3"], [Figure("ours_fp32_s", False)]),
    "ingest": (
        ["--store={store}", "--batches=4000", "--rounds=1", "--train-steps=0"],
        [Figure("feed_mtok_per_cpu_s", True), Figure("feed_drawn_mtok_per_cpu_s", True)],
    ),
    "prepare": (
        ["--source={source}", "--vocabulary={vocabulary}", "--repeats=1"],
        [Figure("prepare_cpu_s", False), Figure("tokenizer_cpu_s", False)],
    ),
    "generate": (["--size=mini", "--new=48", "--texts=2", "--rounds=1", "--threads=1"], [Figure("cached_s", False)]),
}


def main() -> None:
    options = _options()
    chosen = options.only.split(",") if options.only else list(BENCHMARKS)
    rounds: list[dict[str, tuple[float, float]]] = []
    with _revision.checkout(options.rev) as tree, tempfile.TemporaryDirectory(prefix="glm-speed-") as folder:
        for side in (tree, _revision.ROOT):
            _revision.check_modules(side)
        places = {"source": options.source, "vocabulary": options.vocabulary, "store": ""}
        if "ingest" in chosen:
            places["store"] = _prepare(tree, Path(folder), options)
        for number in range(options.rounds):
            found: dict[str, tuple[float, float]] = {}
            for name in chosen:
                order = (tree, _revision.ROOT) if number % 2 == 0 else (_revision.ROOT, tree)
                values = {side: _run(side, name, places, Path(folder)) for side in order}
                for figure in BENCHMARKS[name][1]:
                    found[f"{name}_{figure.name}"] = (values[tree][figure.name], values[_revision.ROOT][figure.name])
            rounds.append(found)
            print(f"round {number + 1} of {options.rounds} is done", flush=True)
    values, ratios = summarise(rounds, {f"{name}_{f.name}": f for name in chosen for f in BENCHMARKS[name][1]})
    print(f"{'':36} {'old':>12} {'new':>12} {'speed, new / old':>18}")
    for name in rounds[0]:
        low, high = (ratios[f"{name}_{end}"] for end in ("low", "high"))
        sides = " ".join(f"{values[f'{name}_{side}']:12,.4g}" for side in ("old", "new"))
        print(f"{name:36} {sides} {ratios[name]:18.3f}   ({low:.3f} to {high:.3f})")
    if options.json:
        report = {"name": "same_speed", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": ratios}, indent=2))


def summarise(
    rounds: list[dict[str, tuple[float, float]]], figures: Mapping[str, Figure]
) -> tuple[dict[str, float], dict[str, float]]:
    """(medians of each side, ratios of speed with the ends of their intervals) of (old, new) pairs."""
    values, ratios = {}, {}
    for name in rounds[0]:
        pairs = [found[name] for found in rounds]
        for side, measured in zip(("old", "new"), zip(*pairs, strict=True), strict=True):
            values[f"{name}_{side}"] = statistics.median(measured)
        speeds = sorted(new / old if figures[name].is_speed else old / new for old, new in pairs)
        outer = outer_rank(len(speeds))
        ratios |= {
            name: statistics.median(speeds),
            f"{name}_low": speeds[outer],
            f"{name}_high": speeds[-1 - outer],
        }
    return values, ratios


def _run(tree: Path, name: str, places: dict[str, str], folder: Path) -> dict[str, float]:
    """The values of one run of a tree's benchmark. Ends the program where it fails."""
    report = folder / f"{name}.json"
    report.unlink(missing_ok=True)
    words = [word.format(**places) for word in BENCHMARKS[name][0]]
    _revision.call(tree, [sys.executable, f"benchmarks/{name}.py", *words, f"--json={report}"])
    return json.loads(report.read_text())["values"]


def _prepare(tree: Path, folder: Path, options: argparse.Namespace) -> str:
    """URL of a token store of the source."""
    settings = {
        "data.sources": f"[{{reader: {options.reader}, url: {options.source}}}]",
        "data.root": f"{folder}/data",
        "data.tokenizer.url": options.vocabulary,
        "tracking.enabled": "false",
    }
    print("preparing a store", flush=True)
    words = [f"--{key}={value}" for key, value in settings.items()]
    _revision.call(tree, [sys.executable, "workflows/prepare.py", *words])
    (manifest,) = folder.glob("data/stores/*/manifest.json")
    return str(manifest.parent)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rev", nargs="?", default=_revision.BASELINE, help="the earlier revision")
    parser.add_argument("--source", required=True, help="file or folder of raw text, for store and ingest")
    parser.add_argument("--reader", default="wikiextractor")
    parser.add_argument("--vocabulary", required=True, help="tokenizer.json or vocab.txt")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", help="names of some of the five, with commas between")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    options.source, options.vocabulary = (str(Path(place).resolve()) for place in (options.source, options.vocabulary))
    if unknown := set((options.only or "").split(",")) - {*BENCHMARKS, ""}:
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}; have {', '.join(BENCHMARKS)}")
    return options


if __name__ == "__main__":
    main()
