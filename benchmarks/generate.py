"""Generation with and without the key-value cache, and texts side by side against one at a time.

    python benchmarks/generate.py [--size mini] [--new 256] [--texts 8] [--rounds 3] [--threads N] [--json FILE]

Random weights, which cost what trained ones cost; nothing ends a blank early, so every text gets all its tokens, and
the benchmark checks that both sides write the same ones. `cached` and `uncached`, which recomputes everything for each
token, fill the one blank of a text of 128 tokens; the batch is of texts of 24 to 136 tokens with two blanks each. Wall
seconds, contenders in turn within a round, medians of rounds after one that warms up (`uncached`, which takes longest,
skips it).
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from glm_model import GLM, Decoding, layout, sized
from glm_model.generation.fill import fill_tokens
from glm_model.generation.sampling import Limits, Written

CLS, MASK, SOP, VOCABULARY = 1, 2, 5, 30_592


def main() -> None:
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = GLM(sized(options.size, vocab_size=VOCABULARY)).eval()
    one = [_prompt(128, blanks=1)]
    several = [_prompt(24 + 16 * index, blanks=2) for index in range(options.texts)]
    long, short = Decoding(max_tokens=options.new), Decoding(max_tokens=options.new // 8)

    def write(prompts: list[layout.Prompt], decoding: Decoding, *, use_cache: bool = True) -> list[list[list[Written]]]:
        return fill_tokens(model, prompts, decoding, Limits(sop=SOP, stop=()), use_cache=use_cache)

    contenders: dict[str, Callable[[], list[list[list[Written]]]]] = {
        "cached": lambda: write(one, long),
        "uncached": lambda: write(one, long, use_cache=False),
        "batch": lambda: write(several, short),
        "one at a time": lambda: [found for prompt in several for found in write([prompt], short)],
    }
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(options.rounds + 1):
        written = {}
        for name, work in contenders.items():
            if number == 0 and name == "uncached":
                continue
            started_at = time.perf_counter()
            written[name] = work()
            if number:
                took[name].append(time.perf_counter() - started_at)
    for left, right in (("cached", "uncached"), ("batch", "one at a time")):
        assert _tokens(written[left]) == _tokens(written[right]), f"{left} and {right} differ"
    _report(options, took, {name: sum(map(len, _tokens(found))) for name, found in written.items()})


def _report(options: argparse.Namespace, took: dict[str, list[float]], tokens: dict[str, int]) -> None:
    seconds = {name: statistics.median(values) for name, values in took.items()}
    print(f"{options.size}, {torch.get_num_threads()} threads, {options.new} new tokens | {options.texts} texts")
    print(f"{'':14} {'seconds':>8} {'spread':>15} {'tokens':>7} {'tokens/s':>9}")
    for name, value in seconds.items():
        spread = f"{min(took[name]):.2f} to {max(took[name]):.2f}"
        print(f"{name:14} {value:8.2f} {spread:>15} {tokens[name]:7} {tokens[name] / value:9.1f}")
    ratios = {
        "cached_vs_uncached": seconds["uncached"] / seconds["cached"],
        "batch_vs_one_at_a_time": seconds["one at a time"] / seconds["batch"],
    }
    for name, value in ratios.items():
        print(f"{name}: {value:.1f} x")
    if options.json:
        values = {f"{name.replace(' ', '_')}_s": value for name, value in seconds.items()}
        report = {"name": "generate", "machine": platform.processor() or platform.machine()}
        with open(options.json, "w") as file:
            json.dump({**report, "values": values, "ratios": ratios}, file, indent=2)


def _prompt(length: int, *, blanks: int) -> layout.Prompt:
    tokens = np.random.default_rng(length).integers(100, 30_000, length)
    tokens[0] = CLS
    tokens[np.linspace(length // 4, length - 2, blanks).astype(int)] = MASK
    return layout.prompt(tokens, masks=(MASK,))


def _tokens(written: list[list[list[Written]]]) -> list[tuple[int, ...]]:
    return [blank.tokens for samples in written for blanks in samples for blank in blanks]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="mini")
    parser.add_argument("--new", type=int, default=256, help="tokens of the single text; the batch gets an eighth")
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of torch; default: its own choice")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
