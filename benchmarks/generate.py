"""Generation: with and without the cache, several texts side by side, an earlier revision, transformers, and memory.

    python benchmarks/generate.py [--size mini] [--new 256] [--texts 8] [--rounds 3] [--threads N] [--json FILE]
        [--sides ours,build,transformers] [--base REV] [--peers PYTHON] [--reads base]

Random weights, which cost what trained ones cost; nothing ends a blank early, so every text gets all its tokens, and
the benchmark checks that both sides write the same ones. `cached` and `uncached`, which recomputes everything for each
token, fill the one blank of a text of 128 tokens; the batch is of texts of 24 to 136 tokens with two blanks each. Wall
seconds, contenders in turn within a round, medians of rounds after one that warms up (`uncached`, which takes longest,
skips it).

With --sides, 64 texts of 16 to 256 tokens (drawn uniformly) get 64 tokens each, in CPU seconds of processes of one
thread that take turns: this tree, an earlier revision, and transformers' `generate` with a GPT-2 of equal shape, whose
better cache counts; it runs in an interpreter of its own (`peers.txt` says how), and is left out where it is not there.

With --reads, one text of 32 tokens gets 24 by a model of that size, on one core, beside the reading of as many bytes as
its weights have from memory, in one buffer (`read`) and matrix by matrix where they lie (`in_place`); they take turns.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import _revision
import numpy as np
import torch

from glm_model import GLM, Decoding, layout, sized
from glm_model.generation.fill import fill_tokens
from glm_model.generation.sampling import Limits, Written

CLS, MASK, SOP, VOCABULARY = 1, 2, 5, 30_592
WRITERS = Path(__file__).with_name("_batch_writers.py")


def main() -> None:
    options = _options()
    values, ratios = cached_and_batched(options)
    for measured in (sides(options) if options.sides else ({}, {}), reads(options) if options.reads else ({}, {})):
        values, ratios = values | measured[0], ratios | measured[1]
    if options.json:
        report = {"name": "generate", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps({**report, "values": values, "ratios": ratios}, indent=2))


def cached_and_batched(options: argparse.Namespace) -> tuple[dict[str, float], dict[str, float]]:
    """Wall seconds of what this process does with the cache, without it, and with several texts."""
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
    seconds = {name: statistics.median(values) for name, values in took.items()}
    tokens = {name: sum(map(len, _tokens(found))) for name, found in written.items()}
    print(f"{options.size}, {torch.get_num_threads()} threads, {options.new} new tokens | {options.texts} texts")
    _print({name: (took[name], tokens[name]) for name in seconds})
    ratios = {
        "cached_vs_uncached": seconds["uncached"] / seconds["cached"],
        "batch_vs_one_at_a_time": seconds["one at a time"] / seconds["batch"],
    }
    for name, value in ratios.items():
        print(f"{name}: {value:.1f} x")
    return {f"{name.replace(' ', '_')}_s": value for name, value in seconds.items()}, ratios


def sides(options: argparse.Namespace) -> tuple[dict[str, float], dict[str, float]]:
    """CPU seconds of a batch by each side: medians, and ratios of tokens per CPU second, the median over rounds."""
    wanted = options.sides.split(",")
    shape = sized(options.size, vocab_size=VOCABULARY)
    batch = {"texts": options.batch, "shortest": 16, "longest": 256, "new": options.batch_new, "precision": "fp32"}
    asked = {name: getattr(shape, name) for name in ("layers", "width", "heads", "vocab_size")} | batch
    with ExitStack() as stack:
        commands = {"ours": (sys.executable, "glm", asked, _revision.ROOT)}
        if "bf16" in wanted:
            commands["bf16"] = (sys.executable, "glm", asked | {"precision": "bf16"}, _revision.ROOT)
        if "build" in wanted:
            commands["build"] = (sys.executable, "glm", asked, stack.enter_context(_revision.checkout(options.base)))
        if "transformers" in wanted:
            commands |= {cache: (options.peers, cache, asked, _revision.ROOT) for cache in ("dynamic", "static")}
        started = {name: stack.enter_context(_writer(*command)) for name, command in commands.items()}
        there = {name: write for name, (write, _) in started.items() if write}
        for name, (_, told) in started.items():
            print(f"{name}: {told}")
        took: dict[str, list[float]] = {name: [] for name in there}
        for number in range(options.rounds + 1):
            for name, write in there.items():
                cpu_s = write()
                if number:
                    took[name].append(cpu_s)
    tokens = options.batch * options.batch_new
    print(f"{options.size}, a batch of {options.batch} texts, {options.batch_new} new tokens each; CPU seconds")
    _print({name: (several, tokens) for name, several in took.items()})
    values = {f"batch_{name}_tokens_per_cpu_s": tokens / statistics.median(several) for name, several in took.items()}
    ratios = {}
    if "build" in took:
        ratios["batch_vs_build"] = _ratio(took["build"], took["ours"])
    if "dynamic" in took:
        better = min(("dynamic", "static"), key=lambda name: statistics.median(took[name]))
        ratios["batch_vs_transformers"] = _ratio(took[better], took["ours"])
    if "bf16" in took:
        ratios["batch_bf16_vs_fp32"] = _ratio(took["ours"], took["bf16"])
    for name, value in ratios.items():
        print(f"{name}: {value:.2f} x")
    return values, ratios


@contextmanager
def _writer(
    python: str, side: str, settings: dict[str, Any], tree: Path
) -> Iterator[tuple[Callable[[], float] | None, str]]:
    """(what writes the batch and gives its CPU seconds, None where the side cannot be started; its version)."""
    command = [python, str(WRITERS), side, json.dumps(settings)]
    environment = _revision.environment(tree)
    with subprocess.Popen(
        command, cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        lines = (json.loads(line) for line in process.stdout if line.startswith("{"))
        told = next(lines, {"left_out": "it could not be started"})

        def write() -> float:
            print(file=process.stdin, flush=True)
            done = next(lines)
            assert done["tokens"] == settings["texts"] * settings["new"], f"{side} wrote {done['tokens']} tokens"
            return done["cpu_s"]

        try:
            if "left_out" in told:
                yield None, f"left out: {told['left_out']}"
            else:
                yield write, f"{side} {told['version']}"
        finally:
            process.stdin.close()
            process.wait(60)


def reads(options: argparse.Namespace) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of a token of one text, and of reading all weights once, on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = GLM(sized(options.reads, vocab_size=VOCABULARY)).eval()
    buffer = torch.ones(sum(parameter.numel() for parameter in model.parameters()))
    took: dict[str, list[float]] = {"token": [], "read": [], "in_place": []}
    for number in range(options.rounds + 1):
        seconds = {}
        for tokens in (8, 32):  # the difference leaves out what is done once
            started_at = time.perf_counter()
            fill_tokens(model, [_prompt(32, blanks=1)], Decoding(max_tokens=tokens), Limits(sop=SOP, stop=()))
            seconds[tokens] = time.perf_counter() - started_at
        started_at = time.perf_counter()
        for _ in range(4):
            buffer.sum()
        read_at = time.perf_counter()
        for _ in range(4):
            for parameter in model.parameters():
                parameter.detach().sum()
        if number:
            took["token"].append((seconds[32] - seconds[8]) / 24)
            took["read"].append((read_at - started_at) / 4)
            took["in_place"].append((time.perf_counter() - read_at) / 4)
    torch.set_num_threads(threads)
    megabytes = buffer.numel() * 4 / 1e6
    values = {f"{name}_{options.reads}_ms": 1e3 * statistics.median(several) for name, several in took.items()}
    ratio = _ratio(took["token"], took["read"])
    print(f"{options.reads}, one core, {megabytes:,.0f} MB of weights: {values}; token_vs_weights_read: {ratio:.2f}")
    return values, {"token_vs_weights_read": ratio}


def _ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def _print(rows: dict[str, tuple[list[float], int]]) -> None:
    print(f"{'':14} {'seconds':>8} {'spread':>15} {'tokens':>7} {'tokens/s':>9}")
    for name, (took, tokens) in rows.items():
        value = statistics.median(took)
        spread = f"{min(took):.2f} to {max(took):.2f}"
        print(f"{name:14} {value:8.2f} {spread:>15} {tokens:7} {tokens / value:9.1f}")


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
    parser.add_argument("--sides", default="", help="who writes the large batch: ours,build,transformers,bf16")
    parser.add_argument("--batch", type=int, default=64, help="texts of the large batch")
    parser.add_argument("--batch-new", type=int, default=64, help="new tokens of each of them")
    parser.add_argument("--base", default=_revision.BASELINE, help="the earlier revision")
    parser.add_argument("--peers", default=sys.executable, help="the interpreter that has transformers")
    parser.add_argument("--reads", default="", help="size of the model whose token is set beside reading its weights")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
