"""Blanks whose lengths the model chooses, beside a masked language model that must be told them.

    python benchmarks/blank_lengths.py --glm runs/<glm> --masked runs/<masked> --to FOLDER [--data ../shared/data]
        [--texts 7000] [--asked 300] [--steps 1200] [--optim muon] [--rate 2e-3] [--plot FILE.svg] [--json FILE]

The two begin as one Transformer that was pretrained on the same rows of one store for as many steps, as GLM and with
--blanks.mixture='{masked_lm: 1.0}'. Here both learn the same items in the same order by the same optimizer: texts of
Yahoo's answers with words drawn at 10, 20, 30, 40 and 50 % in turn, drawn again each time a text comes, of which those
side by side are one blank. The GLM writes each blank behind the others and ends it by [eop]; the masked model has a
[MASK] for each token. On the first --asked texts of the test split the masked model is told how many tokens each blank
has, or a number that is drawn from the blanks it learned from; it writes greedily, from left to right or the most
confident token first. Lengths are in tokens, `exact` is the share of blanks filled as they were, `BLEU` that of whole
texts, and intervals are of a bootstrap over texts. Models are kept in FOLDER, so the same command continues.
"""

import argparse
import gzip
import itertools
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from _masked import Order, fill_masked, in_place, packed

from glm_model import GLM, Decoding, Tokenizer, save_pretrained
from glm_model.config import OptimConfig
from glm_model.generation.fill import fill_tokens
from glm_model.generation.prompts import read_prompt, spliced
from glm_model.generation.sampling import Limits
from glm_model.layout import Example, Marks, Prompt, layout_answers
from glm_model.tokenizer import PROMPT_MASKS
from glm_model.train import TrainStep, clip_gradients, make_optimizer, set_learning_rates
from pipelines.metrics.comparison import difference
from pipelines.metrics.intervals import interval
from pipelines.metrics.known import METRICS
from pipelines.metrics.written.blanks import same
from pipelines.tasks.infilling import draw

ROOT = Path(__file__).resolve().parents[1]
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5)
LENGTHS = {"1": (1, 1), "2": (2, 2), "3": (3, 3), "4": (4, 4), "5 to 8": (5, 8), "9 and more": (9, 1 << 30)}
ORDERS: tuple[Order, ...] = ("left to right", "most confident first")
TRUE, DRAWN, CHOSEN = "masked, told the true lengths", "masked, drawn lengths", "GLM, lengths of its own"
_BATCH, _MOST_WORDS, _MOST_TOKENS = 16, 100, 32
_OFTEN = 20  # blanks of a length that is drawn into the plot


@dataclass(frozen=True)
class Item:
    """A text with blanks."""

    shown: str
    answers: tuple[str, ...]
    prompt: Prompt
    tokens: tuple[np.ndarray, ...]
    """Tokens of each answer."""

    @property
    def sizes(self) -> list[int]:
        return [len(one) for one in self.tokens]


@dataclass(frozen=True)
class Filled:
    """What a way of filling wrote into all blanks."""

    sizes: np.ndarray
    """Tokens of each blank [B]."""
    is_right: np.ndarray
    """Whether it is filled as it was, bool [B]."""
    sums: np.ndarray
    """(right, blanks) of each text [G, 2]."""
    bleu: float


def main() -> None:
    options = _options()
    tokenizer = Tokenizer.load(str(_model_folder(options.glm)))
    data = Path(options.data) / "infilling" / "yahoo"
    texts = read_texts(data / "val.txt.gz", options.texts)
    taught = [item_of(tokenizer, text, number, 0) for number, text in enumerate(texts)]
    held_out = read_texts(data / "test.first_half.txt.gz", options.asked)
    asked = [item_of(tokenizer, text, number, 0) for number, text in enumerate(held_out)]
    glm = _trained("glm", options.glm, tokenizer, texts, options)
    masked = _trained("masked", options.masked, tokenizer, texts, options)
    lengths = np.array([size for item in taught for size in item.sizes])
    rng = np.random.default_rng(options.seed)
    told = {TRUE: [item.sizes for item in asked], DRAWN: [rng.choice(lengths, len(item.sizes)) for item in asked]}
    found = {CHOSEN: judged(tokenizer, asked, _written(glm, tokenizer, asked))}
    for (name, sizes), order in itertools.product(told.items(), ORDERS):
        banned, prompts = sorted(tokenizer.control_ids), [item.prompt for item in asked]
        written = fill_masked(masked, prompts, sizes, order=order, banned=banned)
        found[f"{name}, {order}"] = judged(tokenizer, asked, written)
    right = np.array([size for item in asked for size in item.sizes])
    better = {name: max((f"{name}, {order}" for order in ORDERS), key=lambda way: _exact(found[way])) for name in told}
    print("\n".join(tables(found, better, right)))
    if options.plot:
        draw_plot({CHOSEN: found[CHOSEN]} | {name: found[way] for name, way in better.items()}, right, options.plot)
    if options.json:
        values = {f"{way}: {name}": value for way, one in found.items() for name, value in _values(one, right).items()}
        report = {"name": "blank_lengths", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": {}}, indent=2))


def read_texts(path: Path, count: int) -> list[str]:
    """The first texts of a file of lines that have at least two words, at most 100, and no mask."""
    with gzip.open(path, "rt") as lines:
        fits = (line.strip() for line in lines if 2 <= len(line.split()) <= _MOST_WORDS)
        return list(islice((text for text in fits if not PROMPT_MASKS.search(text)), count))


def item_of(tokenizer: Tokenizer, text: str, number: int, time: int) -> Item:
    """The item of text `number` when it comes for the time `time`; its ratio follows from both."""
    shown, answers = draw(text, RATIOS[(number + time) % len(RATIOS)], f"blank lengths {time}")
    tokens = tokenizer.encode_answers(shown, list(answers))
    return Item(shown, answers, read_prompt(tokenizer, shown), tuple(tokens))


def train(
    model: GLM, examples: Callable[[int], Sequence[Example]], config: OptimConfig, *, steps: int, told: str
) -> GLM:
    """Train a model on the packed examples of each step: cross-entropy per predicted token."""
    step_of, optimizer = TrainStep(model).train(), make_optimizer(model, config)
    for step in range(steps):
        set_learning_rates(optimizer, step, steps, config)
        sums, counts = step_of(packed(examples(step)))
        loss = sums.sum() / counts.sum()
        loss.backward()
        clip_gradients(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"# {told} step {step}: loss {loss.item():.3f}", file=sys.stderr, flush=True)
    return model.eval()


def judged(tokenizer: Tokenizer, items: Sequence[Item], written: Sequence[Sequence[np.ndarray]]) -> Filled:
    """What the written tokens [text][blank] come to."""
    from sacrebleu.metrics import BLEU

    texts = [[tokenizer.decode(tokens, inside=True) for tokens in several] for several in written]
    is_right = [
        [same(right, text) for right, text in zip(item.answers, several, strict=True)]
        for item, several in zip(items, texts, strict=True)
    ]
    whole = ["".join(spliced(item.shown, several)) for item, several in zip(items, texts, strict=True)]
    right = ["".join(spliced(item.shown, item.answers)) for item in items]
    return Filled(
        sizes=np.array([len(tokens) for several in written for tokens in several]),
        is_right=np.array([one for several in is_right for one in several]),
        sums=np.array([[sum(several), len(several)] for several in is_right], np.float64),
        bleu=BLEU(force=True).corpus_score(whole, [right]).score,
    )


def tables(found: Mapping[str, Filled], better: Mapping[str, str], right: np.ndarray) -> list[str]:
    """Lines in Markdown: all ways, then the lengths and the exact matches by true length. right: true lengths [B]."""
    lines = ["| filled by | exact, % | BLEU | right length, % | mean length |", f"|{'---|' * 5}"]
    for way, one in found.items():
        low, high = interval("exact_match", one.sums) or (0.0, 0.0)
        equal = 100 * (one.sizes == right).mean()
        cells = [f"{_exact(one):.1f} ({low:.1f} to {high:.1f})", f"{one.bleu:.1f}", f"{equal:.1f}"]
        lines.append(f"| {way} | {' | '.join(cells)} | {one.sizes.mean():.2f} |")
    lines += ["", f"{len(right):,} blanks, mean length {right.mean():.2f}", ""]
    glm = found[CHOSEN]
    for told, way in better.items():
        value = METRICS["exact_match"].value
        if (one := difference(value, found[way].sums[None], glm.sums[None])) is not None:
            lines.append(f"GLM minus {told}: {one.value:+.1f} ({one.low:+.1f} to {one.high:+.1f}) exact")
    columns = ["true length", "blanks", "GLM: mean length", "of that length, %", "drawn lengths: of that length, %"]
    columns += ["exact, %: GLM", "true lengths", "drawn lengths"]
    lines += ["", f"| {' | '.join(columns)} |"]
    lines.append(f"|{'---|' * 8}")
    for name, (low, high) in LENGTHS.items():
        here = (low <= right) & (right <= high)
        if not here.any():
            continue
        ways = [glm, found[better[TRUE]], found[better[DRAWN]]]
        equal = [100 * (one.sizes == right)[here].mean() for one in (glm, ways[2])]
        exact = [100 * one.is_right[here].mean() for one in ways]
        cells = [f"{here.sum():,}", f"{glm.sizes[here].mean():.2f}", *(f"{one:.1f}" for one in (*equal, *exact))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def draw_plot(ways: Mapping[str, Filled], right: np.ndarray, path: str) -> None:
    """Left: what is written for each true length, its mean and its middle half. Right: exact matches."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    calibration, exact = figure.subplots(1, 2)
    counts = np.bincount(right)
    lengths = np.flatnonzero(counts >= min(_OFTEN, counts.max())).tolist()
    calibration.plot([1, lengths[-1]], [1, lengths[-1]], color="grey", linestyle=":", label="right")
    for color, (way, one) in zip(("C0", "C1", "C2"), ways.items(), strict=True):
        at = [right == length for length in lengths]
        exact.plot(lengths, [100 * one.is_right[here].mean() for here in at], marker="o", label=way, color=color)
        if way != TRUE:
            calibration.plot(lengths, [one.sizes[here].mean() for here in at], marker="o", label=way, color=color)
            quarters = [np.percentile(one.sizes[here], [25, 75]) for here in at]
            calibration.fill_between(lengths, *zip(*quarters, strict=True), alpha=0.15, color=color)
    calibration.set(xlabel="true length, tokens", ylabel="written length: mean, middle half")
    exact.set(xlabel="true length, tokens", ylabel="exact match, %")
    for axes in (calibration, exact):
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "blank_lengths"}):
        figure.savefig(path, metadata={"Date": None, "Creator": None})


def _trained(kind: str, begin: str, tokenizer: Tokenizer, texts: list[str], options: argparse.Namespace) -> GLM:
    """A model that learned the items, from FOLDER where it is there."""
    how = f"{options.optim}-{options.rate:g}-{options.steps}-steps-of-{len(texts)}-texts-seed-{options.seed}"
    folder = Path(options.to).resolve() / f"{kind}-{how}"
    if (folder / "config.json").exists():
        return GLM.from_pretrained(str(folder)).eval()
    special = tokenizer.special
    marks = Marks(special.sop, special.eop, special.pad)
    rng = np.random.default_rng(options.seed)
    times = -(-options.steps * _BATCH // len(texts))
    order = [(int(number), time) for time in range(times) for number in rng.permutation(len(texts))]

    def examples(step: int) -> list[Example]:
        several = order[step * _BATCH : (step + 1) * _BATCH]
        items = [item_of(tokenizer, texts[number], number, time) for number, time in several]
        if kind == "glm":
            return [layout_answers(one.prompt, list(one.tokens), marks=marks) for one in items]
        return [in_place(one.prompt, one.tokens) for one in items]

    model = GLM.from_pretrained(str(_model_folder(begin)))
    config = OptimConfig(name=options.optim, lr=options.rate, warmup_fraction=0.1, schedule="linear", floor_ratio=0.1)
    if options.optim == "adamw":
        config = replace(config, betas=(0.9, 0.999), eps=1e-8)  # finetune.py's
    train(model, examples, config, steps=options.steps, told=kind)
    save_pretrained(model, str(folder), tokenizer=tokenizer)
    return model


def _written(model: GLM, tokenizer: Tokenizer, items: Sequence[Item]) -> list[list[np.ndarray]]:
    """What the GLM writes into each blank, greedily and from left to right."""
    special, found = tokenizer.special, []
    ends = (special.eop, special.eos)
    banned = tuple(sorted(tokenizer.control_ids.difference(ends)))
    limits = Limits(sop=special.sop, stop=ends, banned=banned, vocab_size=tokenizer.vocab_size)
    decoding = Decoding(max_tokens=_MOST_TOKENS, min_tokens=1)
    for begin in range(0, len(items), 32):
        prompts = [item.prompt for item in items[begin : begin + 32]]
        for (sample,) in fill_tokens(model, prompts, decoding, limits):
            found.append([np.array(one.tokens, np.int64) for one in sample])
    return found


def _values(one: Filled, right: np.ndarray) -> dict[str, float]:
    equal = 100 * float((one.sizes == right).mean())
    return {"exact_match": _exact(one), "bleu": one.bleu, "right_length": equal, "mean_length": float(one.sizes.mean())}


def _exact(one: Filled) -> float:
    return 100 * float(one.is_right.mean())


def _model_folder(place: str) -> Path:
    """A model's folder, or that of a run."""
    inner = Path(place) / "model"
    return inner if inner.exists() else Path(place)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glm", required=True, help="a run or model folder that was pretrained as GLM")
    parser.add_argument("--masked", required=True, help="one that was pretrained as masked language model")
    parser.add_argument("--to", required=True, help="folder for the models that learned the items")
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--texts", type=int, default=7000, help="texts that teach")
    parser.add_argument("--asked", type=int, default=300, help="texts that are reported")
    parser.add_argument("--steps", type=int, default=1200, help=f"steps of {_BATCH} items")
    parser.add_argument("--optim", choices=["adamw", "muon"], default="muon")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate of AdamW; muon keeps its own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plot", help="draw lengths and exact matches into this SVG file")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    return options


if __name__ == "__main__":
    main()
