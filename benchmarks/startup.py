"""CPU seconds of a script that only says what it can do, beside those of an earlier revision, interleaved.

    python benchmarks/startup.py [--base REV] [--model FOLDER] [--rounds 9] [--json FILE]

User and system time of whole processes, as the kernel counts them (`os.wait4`): the interpreter, imports, settings.
Each round starts every command in both trees, one after the other, in turns which first; the first round, which also
writes bytecode, does not count. A ratio is the median over rounds of new / old, with the 95 % interval of that median
(order statistics, of six rounds and more); below 1 the working tree takes less. --model: also a blank that is filled
with one token by this model.
"""

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import _revision

_COMMANDS = {
    "pretrain_help": ["workflows/pretrain.py", "--help"],
    "generate_help": ["workflows/generate.py", "--help"],
    "pretrain_print_config": [
        "workflows/pretrain.py",
        "--config",
        "workflows/recipes/quickstart.yaml",
        "--print_config",
    ],
}


def main() -> None:
    options = _options()
    commands = dict(_COMMANDS)
    if options.model:
        filled = ["--model", str(Path(options.model).resolve()), "--text", "It is a [MASK].", "--max_tokens", "1"]
        commands["generate_one_token"] = ["workflows/generate.py", *filled]
    rounds: list[dict[str, tuple[float, float]]] = []
    with _revision.checkout(options.base) as tree:
        for side in (tree, _revision.ROOT):
            _revision.check_modules(side)
        for number in range(options.rounds + 1):
            found = {name: _pair(command, tree, old_first=number % 2 == 0) for name, command in commands.items()}
            if number:  # the first one only warms up
                rounds.append(found)
                ratios = ", ".join(f"{name} {new / old:.3f}" for name, (old, new) in found.items())
                print(f"round {number}: {ratios}", flush=True)
    values, ratios = summarise(rounds)
    print(f"{'':24} {'old CPU-s':>10} {'new CPU-s':>10} {'new / old':>10}")
    for name in commands:
        low, high = (ratios[f"{name}_{end}"] for end in ("low", "high"))
        seconds = " ".join(f"{values[f'{name}_{side}_cpu_s']:10.2f}" for side in ("old", "new"))
        print(f"{name:24} {seconds} {ratios[name]:10.3f}   ({low:.3f} to {high:.3f})")
    if options.json:
        report = {"name": "startup", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": ratios}, indent=2))


def summarise(rounds: list[dict[str, tuple[float, float]]]) -> tuple[dict[str, float], dict[str, float]]:
    """(medians in CPU seconds, ratios with the ends of their intervals) of (old, new) pairs."""
    values, ratios = {}, {}
    for name in rounds[0]:
        pairs = [found[name] for found in rounds]
        for side, seconds in zip(("old", "new"), zip(*pairs, strict=True), strict=True):
            values[f"{name}_{side}_cpu_s"] = statistics.median(seconds)
        measured = sorted(new / old for old, new in pairs)
        outer = outer_rank(len(measured))
        ratios |= {
            name: statistics.median(measured),
            f"{name}_low": measured[outer],
            f"{name}_high": measured[-1 - outer],
        }
    return values, ratios


def outer_rank(count: int) -> int:
    """How many of so many sorted values lie on either side outside of a 95 % interval of the median.

    0 is the widest that there is; of five values and fewer it holds less than 95 %.
    """
    outer, tail = 0, 0.0
    while (tail := tail + math.comb(count, outer) / 2**count) <= 0.025:
        outer += 1
    return max(outer - 1, 0)


def _pair(command: list[str], tree: Path, *, old_first: bool) -> tuple[float, float]:
    """CPU seconds of a command (in the earlier tree, in this one)."""
    order = [tree, _revision.ROOT] if old_first else [_revision.ROOT, tree]
    took = {side: cpu_s(side, command) for side in order}
    return took[tree], took[_revision.ROOT]


def cpu_s(tree: Path, command: list[str]) -> float:
    """User and system seconds of a script and of the processes that it waited for. Ends the program where it fails."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=tree, env=_revision.environment(tree), stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait for it once more
    if process.returncode:
        sys.exit(f"error: {' '.join(command)} in {tree} ended with exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=_revision.BASELINE, help="the earlier revision")
    parser.add_argument("--model", help="folder of a model that both revisions can read")
    parser.add_argument("--rounds", type=int, default=9, help="that count")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: expected at least 1")
    return options


if __name__ == "__main__":
    main()
