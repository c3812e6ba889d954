"""Blanks of 512-token segments on one core: ours, a per-sample construction, and the T5 collator's algorithm.

    python benchmarks/objective.py [--segments 4096] [--rounds 31] [--json FILE]

`plan` draws spans and their order for all segments at once (`pipelines.blanks.draw`); `expand` draws them and lays out
all arrays of packed rows (`pipelines.feed.examples`), 8 rows of 14 segments at a time, and a row at a time; `layout
alone` is `expand` with blanks that were drawn before. `per sample` builds the same arrays one sample at a time, as the
authors' implementation does by its description; `t5` is the span corruption of the Hugging Face T5 collator, which has
no order, no positions and no loss mask. Only `expand` compares like with like: spans alone are not a training example.
CPU seconds of one thread, interleaved; ratios use the smaller of the per-sample time and 555 us, which the authors
measured for one sample.
"""

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from glm_model.layout import Marks
from pipelines.blanks.draw import draw_blanks
from pipelines.blanks.mixture import BlanksConfig, resolve
from pipelines.feed.examples import FeedSettings, lay_out
from pipelines.objectives.token import length_probabilities
from pipelines.ragged import RowBatch, Segments, take_rows
from pipelines.token_classes import TokenClasses

LENGTH, ROW_SEGMENTS, WIDTH = 512, 14, 8192
BATCH_ROWS = 8
AUTHORS_US = 555.0  # per sample, single core (measured on the authors' code, batch of 16, the same machine type)
MASK, SOP, EOP = 2, 990, 991
MARKS = Marks(sop=SOP, eop=EOP, pad=0)


def main() -> None:
    options = _options()
    segments, token_classes = _segments(options.segments)
    mixture = resolve(BlanksConfig(mixture="glm"))
    settings = FeedSettings("train", mixture, token_classes, MARKS, 1, WIDTH, LENGTH, None)
    packed = batches(segments, BATCH_ROWS)
    single = batches(segments, 1)
    samples = [part.tolist() for part in np.split(segments.tokens, segments.offsets[1:-1])[:200]]
    arrays = [np.array(sample) for sample in samples]
    draw_from, generator = random.Random(1), np.random.default_rng(1)

    def expand(batches: list[RowBatch]) -> None:
        for batch in batches:
            lay_out(batch, draw_blanks(mixture, batch, token_classes, seed=1, epoch=0), settings)

    blanks = [draw_blanks(mixture, batch, token_classes, seed=1, epoch=0) for batch in packed]

    def layout() -> None:
        for batch, own in zip(packed, blanks, strict=True):
            lay_out(batch, own, settings)

    contenders: dict[str, tuple[Callable[[], object], int]] = {
        "plan": (lambda: draw_blanks(mixture, segments, token_classes, seed=1, epoch=0), options.segments),
        "expand": (lambda: expand(packed), options.segments),
        "expand, 1 row": (lambda: expand(single), options.segments),
        "layout alone": (layout, options.segments),
        "per sample": (lambda: [per_sample(tokens, draw_from) for tokens in samples], len(samples)),
        "t5": (lambda: [t5(tokens, generator) for tokens in arrays], len(arrays)),
    }
    took: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(options.rounds + 1):
        for name, (work, count) in contenders.items():
            started = time.process_time()
            work()
            took[name].append((time.process_time() - started) / count * 1e6)
    us = {name: statistics.median(values[1:]) for name, values in took.items()}  # the first round warms up
    baseline = min(us["per sample"], AUTHORS_US)
    ratios = {"plan": baseline / us["plan"], "expand": baseline / us["expand"], "expand_vs_t5": us["t5"] / us["expand"]}
    print(f"{'':13} {'us/segment':>11} {'spread':>15}   Mtok/s")
    for name, value in us.items():
        low, high = min(took[name][1:]), max(took[name][1:])
        print(f"{name:13} {value:11.2f} {f'{low:.2f} to {high:.2f}':>15} {LENGTH / value:8.1f}")
    for name, ratio in ratios.items():
        print(f"{name:13} {ratio:11.1f} x")
    if options.json:
        report = {"name": "objective", "machine": platform.processor() or platform.machine()}
        values = {f"{name.replace(', ', '_').replace(' ', '_')}_us": value for name, value in us.items()}
        with open(options.json, "w") as file:
            json.dump({**report, "values": values, "ratios": ratios}, file, indent=2)


def per_sample(tokens: list[int], rng: random.Random) -> dict[str, np.ndarray]:
    """One token-objective example: lengths until 15 % is covered, places with a gap, a random order, all arrays."""
    lengths: list[int] = []
    weights = _WEIGHTS
    while sum(lengths) < int(0.15 * len(tokens)):
        lengths += rng.choices(range(1, len(weights) + 1), weights=weights)
    rng.shuffle(lengths)
    spans = sample_spans(lengths, len(tokens) - 2, 1, rng.randrange)
    rng.shuffle(spans)
    return block_data(tokens, spans)


def sample_spans(lengths: list[int], total: int, offset: int, randrange: Callable[[int], int]) -> list[tuple[int, int]]:
    """Spans of these lengths in text order, at least one token between two, inside `total` tokens behind `offset`."""
    free = total - sum(lengths) - len(lengths) + 1
    starts = sorted(randrange(free + 1) for _ in lengths)
    spans, used = [], offset
    for index, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        spans.append((start + used + index, start + used + index + length))
        used += length
    return spans


def block_data(tokens: list[int], spans: list[tuple[int, int]]) -> dict[str, np.ndarray]:
    """The arrays of one sample from its spans in the order of prediction; targets repeat the context, as theirs do."""
    source = np.array(tokens, dtype=np.int64)
    position = np.ones(len(source), dtype=np.int64)
    for start, end in spans:
        position[start + 1 : end] = 0
    position = np.cumsum(position) - 1
    inputs, targets, places, blocks = [], [], [], []
    for start, end in spans:
        inputs.append(np.concatenate(([SOP], source[start:end])))
        targets.append(np.concatenate((source[start:end], [EOP])))
        places.append(np.full(end - start + 1, position[start], dtype=np.int64))
        blocks.append(np.arange(1, end - start + 2, dtype=np.int64))
    context, kept, last = [], [], 0
    for start, end in sorted(spans):
        context += [source[last:start], [MASK]]
        kept += [position[last:start], position[start : start + 1]]
        last = end
    context.append(source[last:])
    kept.append(position[last:])
    text = np.concatenate(context)
    predicted = np.concatenate(inputs)
    return {
        "tokens": np.concatenate((text, predicted)),
        "targets": np.concatenate((text, *targets)),
        "loss_mask": np.concatenate((np.zeros(len(text), np.int64), np.ones(len(predicted), np.int64))),
        "position_ids": np.concatenate((*kept, *places)),
        "block_position_ids": np.concatenate((np.zeros(len(text), np.int64), *blocks)),
        "sep": np.array(len(text)),
    }


def t5(tokens: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of T5's span corruption (Raffel et al. 2020): 15 % noise in spans of mean length 3."""
    num_noise = min(max(round(len(tokens) * 0.15), 1), len(tokens) - 1)
    num_spans = max(round(num_noise / 3), 1)
    sizes = [_partition(rng, total, num_spans) for total in (len(tokens) - num_noise, num_noise)]
    bounds = np.cumsum(np.stack(sizes, axis=1).reshape(-1))[:-1]
    steps = np.zeros(len(tokens), np.int8)
    steps[bounds] = 1
    noise = np.cumsum(steps) % 2 == 1
    return _with_sentinels(tokens, noise), _with_sentinels(tokens, ~noise)


def _partition(rng: np.random.Generator, total: int, parts: int) -> np.ndarray:
    """Sizes of `parts` non-empty parts of `total` items, uniformly."""
    first = np.arange(total - 1) < parts - 1
    rng.shuffle(first)
    _, sizes = np.unique(np.cumsum(np.concatenate(([False], first))), return_counts=True)
    return sizes


def _with_sentinels(tokens: np.ndarray, noise: np.ndarray) -> np.ndarray:
    starts = noise & ~np.concatenate(([False], noise[:-1]))
    ids = np.where(starts, 32_000 - np.cumsum(starts), 0)
    merged = np.where(starts, ids, tokens)
    return np.concatenate((merged[~noise | starts], [1]))


def batches(segments: Segments, num_rows: int) -> list[RowBatch]:
    """Consecutive segments as batches of packed rows."""
    starts = range(0, len(segments), ROW_SEGMENTS)
    packed = [np.arange(first, min(first + ROW_SEGMENTS, len(segments))) for first in starts]
    return [take_rows(segments, packed[first : first + num_rows]) for first in range(0, len(packed), num_rows)]


def _segments(count: int) -> tuple[Segments, TokenClasses]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(20, 990, count * LENGTH).astype(np.uint16)
    tokens[::LENGTH] = 1
    tokens[LENGTH - 1 :: LENGTH] = 0
    token_classes = TokenClasses(1, 0, {"mask": MASK, "smask": 993, "gmask": 992}, np.zeros(1000, np.uint8))
    offsets = np.arange(count + 1) * LENGTH
    ids = rng.integers(0, 1 << 63, count).astype(np.uint64)
    return Segments(tokens, offsets, ids, offsets[1:] * 4), token_classes


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--segments", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


_WEIGHTS = length_probabilities(3.0, 39)[1:].tolist()

if __name__ == "__main__":
    main()
