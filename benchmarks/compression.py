"""A finished run's unidirectional bits per byte beside compressors, on all of its held-out text.

    python benchmarks/compression.py --run runs/<name> [--curve FILE.svg --restarts 75 150] [--json FILE]

The model reads each segment (512 tokens at most) from left to right and knows nothing of what came before; compressors
take the same documents as one text, in the order of their ids, after nothing (`bz2`, `xz`, and `ppmd` where pyppmd 1.3
is installed) or after as much of the training text as xz's window holds (`xz_after_training`: what the held-out text
adds to the compressed training text). Bits per byte of the cleaned text. --curve draws the run's losses, and its
validation beside the compressors. Also printed: how far the run went and what it waited for. Takes some minutes for
1 MB of text.
"""

import argparse
import bz2
import json
import lzma
import platform
import statistics
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from glm_model import from_pretrained
from glm_model.train import TrainStep
from infra import storage
from pipelines.feed.examples import feed_settings
from pipelines.names import text_url
from pipelines.store.format import Split
from pipelines.store.lineage import documents_of
from workflows.runs.history import Past, open_past, read_log
from workflows.training.engine import Place
from workflows.training.ranks import Ranks
from workflows.training.validation import validate, validation_of

_WINDOW = 64 << 20  # bytes


def main() -> None:
    options = _options()
    past = open_past(options.run)
    held_out = _text(past, past.setup.store.validation)
    training = _text(past, past.setup.store.train)
    before = training[max(len(training) - max(_WINDOW - len(held_out), 0), 0) :]
    compressed = {"bz2": len(bz2.compress(held_out, 9)), "xz": _xz(held_out)}
    compressed["xz_after_training"] = _xz(before + held_out) - _xz(before)
    if (ppmd := _ppmd(held_out)) is not None:
        compressed["ppmd"] = ppmd
    values = {name: 8 * size / len(held_out) for name, size in compressed.items()}
    values |= {name.replace("/", "_"): value for name, value in _model(past).items() if "bits_per_byte" in name}
    print(f"{len(held_out):,} bytes of held-out text, {len(before):,} of training text before them")
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        print(f"{name:44} {value:6.3f} bits per byte")
    reached, waits = _reached(past), _waits(past)
    print(
        f"the run's last logged step, {reached['step']:,}: {reached['data_tokens']:,.0f} tokens, "
        f"{reached['data_epoch']:.3f} epochs"
    )
    print("waited, share of the time of a logged interval:", ", ".join(f"{k} {v:.4%}" for k, v in waits.items()))
    if options.curve:
        _draw(past, {name: values[name] for name in compressed}, options.restarts, options.curve)
    if options.json:
        report = {"name": "compression", "machine": platform.processor() or platform.machine()}
        ratios = {name: size / values["val_bits_per_byte"] for name, size in values.items() if name in compressed}
        Path(options.json).write_text(
            json.dumps(report | {"values": values | reached | waits, "ratios": ratios}, indent=2)
        )


def _model(past: Past) -> dict[str, float]:
    """Validation of the run's model on all held-out rows."""
    settings = feed_settings(past.setup.store, past.setup.tokenizer, past.setup.recipe.blanks, split="validation")
    masks = past.setup.recipe.blanks.mask_tokens
    validation = validation_of(past.setup.store, settings, masks, rows=past.setup.store.validation.rows, micro_rows=1)
    model = from_pretrained(storage.join(past.url, "model"))
    precision = past.setup.recipe.train.precision
    step = TrainStep(model, num_objectives=len(settings.mixture.names), precision=precision)
    place = Place(Ranks(0, 1, torch.device("cpu")), precision, is_restored=False, beat=lambda: None)
    return validate(step, validation, place)


def _reached(past: Past) -> dict[str, float]:
    """The last logged step of training, and the tokens and epochs up to it."""
    last = [point for point in read_log(past.url) if "data/tokens" in point.values][-1]
    return {"step": last.step} | {f"data_{name}": last.values[f"data/{name}"] for name in ("tokens", "epoch")}


def _waits(past: Past) -> dict[str, float]:
    """Shares of the time in which training waited for data and for checkpoints: the largest and the mean."""
    logged = [point.values for point in read_log(past.url) if "perf/data_wait_share" in point.values]
    shares = {name: [values[f"perf/{name}_share"] for values in logged] for name in ("data_wait", "checkpoint")}
    return {f"{name}_{of.__name__}": of(each) for name, each in shares.items() for of in (max, statistics.fmean)}


def _draw(past: Past, compressed: dict[str, float], restarts: list[int], path: str) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    points = read_log(past.url)
    matplotlib.rcParams["svg.fonttype"] = "none"  # text as text: a tenth of the file, and it can be searched
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, axis in (("train/loss", left), ("val/bits_per_byte", right)):
        found = [(p.step, p.values[name]) for p in points if name in p.values]
        axis.plot(*zip(*found, strict=True), marker="o" if axis is right else None, markersize=3, label="GLM mini")
        axis.set(xlabel="step", title=name)
        for number, step in enumerate(restarts):
            axis.axvline(step, color="grey", linestyle=":", label=None if number else "killed")
    for index, (name, bits) in enumerate(sorted(compressed.items(), key=lambda item: item[1])):
        # Some lines are close: their labels take turns.
        x, horizontal, vertical = ((0.02, "left", "top"), (0.98, "right", "bottom"))[index % 2]
        label = name.replace("_", " ")
        right.axhline(bits, color="C1", linewidth=0.8)
        right.annotate(label, (x, bits), xycoords=("axes fraction", "data"), fontsize=7, ha=horizontal, va=vertical)
    for axis in (left, right):
        axis.legend(frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def _text(past: Past, split: Split) -> bytes:
    """The cleaned text of a split's documents, by id; texts of an earlier preparation may lie beside them."""
    ids = pa.concat_tables([documents_of(split, shard).select(["id"]) for shard in range(len(split.shards))])["id"]
    url, parts = text_url(past.setup.recipe.data), []
    for info in storage.list_files(url):
        if info.path.endswith(".parquet") and "ledger" not in info.path:
            table = pq.read_table(storage.join(url, info.path), columns=["id", "text"])
            parts.append(table.filter(pc.is_in(table["id"], ids.combine_chunks())))
    table = pa.concat_tables(parts)
    _, first = np.unique([one.hex() for one in table["id"].to_pylist()], return_index=True)
    return "\n".join(table["text"].take(pa.array(first)).to_pylist()).encode()


def _xz(text: bytes) -> int:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": _WINDOW}]
    return len(lzma.compress(text, filters=filters))


def _ppmd(text: bytes) -> int | None:
    try:
        import pyppmd
    except ImportError:
        return None
    return len(pyppmd.compress(text, max_order=8, mem_size=256 << 20))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="a finished run's folder")
    parser.add_argument("--curve", help="draw the run to this file")
    parser.add_argument("--restarts", type=int, nargs="*", default=[], help="steps at which it was killed")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
