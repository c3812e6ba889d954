"""Forward and backward of a training step on one core: ours, and as the original training did it.

    python benchmarks/step.py [--size base] [--segments 2] [--rounds 5] [--memory] [--json FILE]

Segments of 560 positions (512 tokens, 24 blanks), dropout 0.1. `original style` is benchmarks/original_style.py in
fp32: a dense mask, activations computed again in backward, logits of all positions. Ours packs the segments into one
row. The maths are equal: without dropout the losses agree to 1e-5, which is checked first. CPU seconds of one thread,
without the optimizer, interleaved, medians; bf16 only where the CPU multiplies it in hardware. --memory adds the peak
memory of a whole step (with AdamW) of base and large, with and without activation checkpointing, each in a process of
its own.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from batches import POSITIONS, make_batch
from original_style import OriginalStyle

from glm_model.config import OptimConfig, sized
from glm_model.model import GLM
from glm_model.train import Precision, TrainStep, clip_gradients, make_optimizer, resolve_precision


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    if options.peak:
        print(peak_mib(options.peak, options.segments, checkpointed=options.checkpointed))
        return
    values, ratios = compare(options.size, options.segments, options.rounds)
    if options.memory:
        values |= memory(options.memory_segments)
    if options.json:
        report = {"name": "step", "machine": platform.processor() or platform.machine()}
        with open(options.json, "w") as file:
            json.dump({**report, "values": values, "ratios": ratios}, file, indent=2)


def compare(size: str, segments: int, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """(values, ratios) of the interleaved contest, which it prints."""
    torch.manual_seed(0)
    model = GLM(sized(size))
    packed = make_batch(segments, vocab_size=model.config.vocab_size, width=segments * POSITIONS)
    unpacked = make_batch(segments, vocab_size=model.config.vocab_size)
    original = OriginalStyle(model)
    difference = loss_difference(model, packed, unpacked)
    print(f"{size}, {segments} segments of {POSITIONS} positions; losses differ by {difference:.1e} of their size")
    if difference > 1e-5:
        sys.exit("the losses are not equal: the times would not compare the same maths")

    def ours(precision: Precision) -> Callable[[], None]:
        step = TrainStep(model, precision=precision)

        def run() -> None:
            sums, counts = step(packed)
            (sums / counts).sum().backward()

        return run

    contenders = {"original style": lambda: original(unpacked).backward(), "ours, fp32": ours("fp32")}
    if resolve_precision("auto", "cpu") == "bf16":
        contenders["ours, bf16"] = ours("bf16")
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, run in contenders.items():
            model.zero_grad()
            started = time.process_time()
            run()
            took[name].append(time.process_time() - started)
    seconds = {name: statistics.median(times[1:]) for name, times in took.items()}  # the first round warms up
    print(f"{'':15} {'s/step':>8} {'spread':>15} {'tokens/s':>9} {'ratio':>6}")
    for name, median in seconds.items():
        spread = f"{min(took[name][1:]):.3f} to {max(took[name][1:]):.3f}"
        ratio = seconds["original style"] / median
        print(f"{name:15} {median:8.3f} {spread:>15} {segments * 512 / median:9.0f} {ratio:6.2f}")
    values = {f"{name.replace(', ', '_').replace(' ', '_')}_s": median for name, median in seconds.items()}
    ours_by = {name.removeprefix("ours, "): median for name, median in seconds.items() if name.startswith("ours")}
    ratios = {name: seconds["original style"] / median for name, median in ours_by.items()}
    return {**values, "loss_difference": difference}, ratios


@torch.no_grad()
def loss_difference(model: GLM, packed: dict[str, torch.Tensor], unpacked: dict[str, torch.Tensor]) -> float:
    """Difference of both styles' mean losses in fp32 without dropout, as a share of the loss."""
    sums, counts = TrainStep(model, precision="fp32").eval()(packed)
    theirs = float(OriginalStyle(model).eval()(unpacked))
    model.train()
    return abs(float(sums / counts) - theirs) / theirs


def memory(segments: int) -> dict[str, float]:
    """Peak memory of a step by size and checkpointing, MiB, which it prints."""
    found = {}
    print(f"\npeak memory of a step with AdamW, a row of {segments} segments ({segments * POSITIONS} positions), MiB")
    for size in ("base", "large"):
        for checkpointed in (False, True):
            command = [sys.executable, __file__, "--peak", size, "--segments", str(segments)]
            done = subprocess.run(
                [*command, *(["--checkpointed"] if checkpointed else [])], capture_output=True, text=True, check=False
            )
            name = f"peak_mib_{size}{'_checkpointed' if checkpointed else ''}"
            if done.returncode:
                print(f"{name:30} failed: {(done.stderr.splitlines() or ['killed: out of memory?'])[-1]}")
                continue
            found[name] = float(done.stdout.split()[-1])
            print(f"{name:30} {found[name]:8.0f}")
    return found


def peak_mib(size: str, segments: int, *, checkpointed: bool) -> float:
    """Peak memory of this process after a whole step."""
    model = GLM(sized(size))
    step = TrainStep(model, checkpoint_activations=checkpointed)
    optimizer = make_optimizer(model, OptimConfig())
    sums, counts = step(make_batch(segments, vocab_size=model.config.vocab_size, width=segments * POSITIONS))
    (sums / counts).sum().backward()
    clip_gradients(model.parameters(), 1.0)
    optimizer.step()
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="base")
    parser.add_argument("--segments", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="also measure peak memory (about 6 GiB are needed)")
    parser.add_argument("--memory-segments", type=int, default=4)
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    parser.add_argument("--checkpointed", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
