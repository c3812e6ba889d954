"""Writing and reading the token store: against the bare tokenizer, datatrove and mosaicml-streaming, interleaved.

    python benchmarks/store.py --source /path/to/enwiki_wikiextractor --vocabulary vocab.txt [--peers PYTHON] [--stages]
        [--rounds 5] [--json FILE]

`write` is text Parquet in to token shards out in this process: tokenise, segment, pack, write; it loads the tokenizer
first, which knows no words. `bare` is the library's own batch call on the same texts, 4,096 at a time, plus the copy
of its ids into one array. `datatrove` is its DocumentTokenizer on the same Parquet and tokenizer.json, in one task,
without its shuffling; it neither segments nor packs. `read` scans the tokens column into one array; `read, all columns`
decodes row groups as training does; `mds` iterates a StreamingDataset of the same rows, uncompressed and repeated up to
--scan-mtok, as a training loop does; most of its time goes into threads that prepare samples, which `mds by index` does
without: that is the like for like of `read`. Files are in the page cache. CPU seconds of one process at a time. The
peers run in an interpreter of their own (`peers.txt` says why and how); one that is not there is left out.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import _peers
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.errors import UserError
from infra.storage import parquet
from pipelines.blanks.draw import draw_rows
from pipelines.blanks.mixture import BlanksConfig, resolve
from pipelines.config import DataConfig
from pipelines.corpus.clean import CleanConfig, clean
from pipelines.corpus.records import Unit, buckets_of
from pipelines.corpus.sources import Source, group_inputs, list_inputs
from pipelines.corpus.units import clean_files, documents_url
from pipelines.document import content_key
from pipelines.selection import near_duplicates
from pipelines.selection.config import EvaluationSet
from pipelines.selection.contamination import read_entries
from pipelines.selection.dropped import SelectedText
from pipelines.selection.window_index import WindowIndex, find_shared
from pipelines.store import format
from pipelines.store.held_out import Cuts
from pipelines.store.shards import ShardJob, ShardSettings, assign_buckets, build_shard, tokenizer_of

TEXT_CHARACTERS = 200  # fewer are no text but a title, of which a wiki has many
ENTRY_EVERY, ENTRY_CHARACTERS = 50, 500  # evaluation entries made of the texts
# Measured in Mtok per CPU second, the others in CPU seconds.
READS = ("read", "read, all columns", "mds", "mds by index")

Runs = dict[str, list[float]]  # what was measured, by contender


class Corpus(NamedTuple):
    """Cleaned text in Parquet, and the same texts in memory."""

    text: SelectedText
    units: list[Unit]
    texts: list[str]
    num_bytes: int


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory(prefix="glm-benchmark-") as folder:
        corpus = read_corpus(Source(options.reader, options.source), f"{folder}/text")
        Tokenizer.load(options.vocabulary).save(f"{folder}/store")
        split = write_store(corpus, f"{folder}/store")  # also warms up
        copies = -(-options.scan_mtok * 1_000_000 // split.tokens)
        contenders = {
            "bare": lambda: bare(corpus.texts, options.vocabulary),
            "write": lambda: _cpu_s(lambda: write_store(corpus, f"{folder}/store")),
            "read": lambda: _rate(split, scan, copies),
            "read, all columns": lambda: _rate(split, scan_all_columns, copies),
            **peers(options.peers, corpus, split, copies, folder),
        }
        runs = interleave(contenders, options.rounds)
        measured = store_values(split)
        stages = interleave(stage_contenders(corpus, folder), options.rounds) if options.stages else {}
    ratios = {
        name: statistics.median([a / b for a, b in zip(runs[above], runs[below], strict=True)])
        for name, above, below in (
            ("write_vs_tokenizer", "bare", "write"),
            ("write_vs_datatrove", "datatrove", "write"),
            ("read_vs_mds", "read", "mds"),
            ("read_vs_mds_by_index", "read", "mds by index"),
        )
        if above in runs and below in runs
    }
    values = {
        "text_mb": corpus.num_bytes / 1e6,
        "tokens": split.tokens,
        **{f"{name}_cpu_s": statistics.median(runs[name]) for name in runs if name not in READS},
        **{
            name.replace(", ", "_").replace(" ", "_") + "_mtok_per_cpu_s": statistics.median(runs[name])
            for name in runs
            if name in READS
        },
        **measured,
        **{
            f"stage_{n.replace(' ', '_')}_cpu_s_per_gb": statistics.median(t) / corpus.num_bytes * 1e9
            for n, t in stages.items()
        },
    }
    _print(runs, stages, values, ratios, corpus.num_bytes)
    if options.json:
        report = {"name": "store", "machine": platform.processor() or platform.machine()}
        with open(options.json, "w") as file:
            json.dump({**report, "values": values, "ratios": ratios}, file, indent=2)


def read_corpus(source: Source, url: str) -> Corpus:
    """Read raw files once, without cleaning."""
    tasks = group_inputs(list_inputs([source]), int(DataConfig().unit_bytes))
    units = [
        unit
        for number, files in enumerate(tasks)
        for unit in clean_files(files, CleanConfig(preset="off"), storage.join(url, f"unit-{number:05d}"))
    ]
    tables = [pq.read_table(documents_url(url, unit.path), columns=["text"]) for unit in units]
    texts = pa.concat_tables(tables)["text"].to_pylist()
    return Corpus(SelectedText(url, None), units, texts, sum(unit.num_bytes for unit in units))


def write_store(corpus: Corpus, url: str) -> format.Split:
    """All texts as training shards of the default shape, packed for the token objective."""
    config = DataConfig()
    settings = ShardSettings(
        config.sequence_length, config.row_width, config.rows_per_group, {"mixture": "glm", "settings": {}}
    )
    tokenizer_of.cache_clear()
    cuts = Cuts({"train": {unit.source: (0, (1 << 64) - 1) for unit in corpus.units}}, tails={})
    assigned = assign_buckets(buckets_of(corpus.units), shard_bytes=int(config.shard_bytes), seed=config.seed)
    jobs = [ShardJob("train", f"shard-{number:05d}", buckets) for number, buckets in enumerate(assigned)]
    shards = [build_shard(job, cuts, settings, text=corpus.text, store_url=url).shard for job in jobs]
    return format.Split(url, shards, format.token_dtype(tokenizer_of(url)[0].vocab_size))


def bare(texts: list[str], vocabulary: str) -> float:
    """CPU seconds of the tokenizers library alone."""
    tokenizer = Tokenizer.load(vocabulary)
    return _cpu_s(lambda: [tokenizer.encode_batch_by_library(texts[i : i + 4096]) for i in range(0, len(texts), 4096)])


def scan(split: format.Split) -> np.ndarray:
    """The tokens of a split in one array."""
    flat, end = np.empty(split.tokens, split.dtype), 0
    for shard in split.shards:
        with pq.ParquetFile(f"{split.url}/{shard.path}") as file:
            for group in range(len(shard.groups)):
                # Threads of pyarrow have a single column to share: they cost a quarter and gain nothing.
                column = file.read_row_group(group, columns=["tokens"], use_threads=False)["tokens"]
                some, _ = parquet.decode_binary(column, split.dtype)
                flat[end : end + len(some)] = some
                end += len(some)
    return flat


def scan_all_columns(split: format.Split) -> None:
    """Row groups as training reads them."""
    for group in range(len(split.group_rows)):
        split.read_group(group)


def store_values(split: format.Split) -> dict[str, float]:
    """Size, and how full the rows are once the blanks of the token objective are laid out (epoch 0)."""
    mixture = resolve(BlanksConfig(mixture="glm"))
    width, length = DataConfig().row_width, DataConfig().sequence_length
    vocabulary = tokenizer_of(split.url)[1]
    used = redrawn = 0
    for group in range(len(split.group_rows)):
        rows = split.read_group(group)
        blanks, redraws = draw_rows(mixture, rows, vocabulary, seed=1234, epoch=0, width=width)
        used += int(mixture.form.positions(rows, blanks).sum())
        redrawn += int((redraws > 0).sum())
    size = sum(os.path.getsize(f"{split.url}/{shard.path}") for shard in split.shards)
    return {
        "bytes_per_token": size / split.tokens,
        "utilisation": used / (split.rows * width),
        "redrawn_rows_share": redrawn / split.rows,
        "padding_unpacked": _padding(split, length, 0),
        "padding_unpacked_of_texts": _padding(split, length, TEXT_CHARACTERS),
    }


def _padding(split: format.Split, length: int, characters: int) -> float:
    """Share of padding if each segment had a row of `length` tokens, over documents of so many characters and more."""
    used = rows = 0
    for shard in split.shards:
        table = pq.read_table(f"{split.url}/{format.shard_files('train', Path(shard.path).stem).documents}")
        kept = table["characters"].to_numpy() >= characters
        used += int(table["tokens"].to_numpy()[kept].sum())
        rows += int(table["pieces"].to_numpy()[kept].sum())
    return 1 - used / (rows * length) if rows else 0.0


def peers(python: str, corpus: Corpus, split: format.Split, copies: int, folder: str) -> dict[str, Callable[[], float]]:
    """The contenders that this interpreter has; says which it has not."""
    installed = _peers.ask(python, "installed")
    found: dict[str, Callable[[], float]] = {}
    for name, state in installed.items():
        print(f"{name} {state}" + (" (see benchmarks/peers.txt)" if state.startswith("left out") else ""))
    if not installed["datatrove"].startswith("left out"):

        def tokenise() -> float:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                done = _peers.ask(python, "datatrove", corpus.text.url, f"{split.url}/tokenizer.json", out)
            assert done["tokens"] > 0.9 * split.tokens, "datatrove has the same texts"
            return done["cpu_s"]

        found["datatrove"] = tokenise
    if not installed["mosaicml-streaming"].startswith("left out"):
        _peers.ask(python, "mds_write", f"{split.url}/train", f"{folder}/mds", str(copies))

        def read(way: str) -> float:
            done = _peers.ask(python, "mds_read", f"{folder}/mds", way)
            assert done["tokens"] == copies * split.tokens, "the data set has the same rows"
            return done["tokens"] / done["cpu_s"] / 1e6

        found |= {"mds": lambda: read("iterate"), "mds by index": lambda: read("by_index")}
    return found


def stage_contenders(corpus: Corpus, folder: str) -> dict[str, Callable[[], float]]:
    """CPU seconds of each optional stage's work on all texts, without reading and writing them."""

    def each(work: Callable[[str], object]) -> Callable[[], float]:
        return lambda: _cpu_s(lambda: [work(document) for document in corpus.texts])

    def batched(work: Callable[[list[str]], object]) -> Callable[[], float]:
        return lambda: _cpu_s(lambda: [work(corpus.texts[i : i + 1000]) for i in range(0, len(corpus.texts), 1000)])

    def exact() -> None:
        np.argsort(np.array([content_key(document) for document in corpus.texts], np.uint64), kind="stable")

    found = {
        f"clean {preset}": each(partial(clean, config=CleanConfig(preset=preset)))
        for preset in ("off", "light", "strict")
    }
    english = CleanConfig(preset="off", languages=["en"])
    try:
        clean("A text that is long enough for its language to be told by the model.", english)
        found["languages"] = each(partial(clean, config=english))
    except UserError as error:
        print(f"languages left out: {error}")
    index = _evaluation_index(corpus, f"{folder}/entries.jsonl")
    found["exact duplicates"] = lambda: _cpu_s(exact)
    found["near duplicates"] = batched(near_duplicates.signatures)
    found["decontamination"] = batched(lambda documents: find_shared(documents, index))
    return found


def interleave(contenders: dict[str, Callable[[], float]], rounds: int) -> Runs:
    """What each contender measures, all of them in turn in every round."""
    runs: Runs = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            runs[name].append(measure())
    return runs


def _rate(split: format.Split, work: Callable[[format.Split], object], times: int) -> float:
    """Mtok per CPU second of scanning a split again and again."""

    def again() -> None:
        for _ in range(times):
            work(split)

    return times * split.tokens / _cpu_s(again) / 1e6


def _cpu_s(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def _evaluation_index(corpus: Corpus, path: str) -> WindowIndex:
    """Entries made of some texts written backwards: ordinary in size and letters, found nowhere."""
    with open(path, "w") as file:
        for document in corpus.texts[::ENTRY_EVERY]:
            file.write(json.dumps({"text": document[:ENTRY_CHARACTERS][::-1]}) + "\n")
    return read_entries([EvaluationSet("jsonl", path)]).index


def _print(runs: Runs, stages: Runs, values: dict[str, float], ratios: dict[str, float], num_bytes: int) -> None:
    written = {name: took for name, took in runs.items() if name not in READS}
    for heading, shown in (("CPU-s", written), ("Mtok/CPU-s", {name: runs[name] for name in READS if name in runs})):
        print(f"\n{'':18} {heading:>12} {'spread':>20}")
        for name, measured in shown.items():
            print(f"{name:18} {statistics.median(measured):12,.2f} {_spread(measured):>20}")
    if stages:
        bare = statistics.median(runs["bare"])
        print(f"\n{'stage':18} {'CPU-s per GB':>12} {'spread':>20} {'of bare':>8}")
    for name, took in stages.items():
        per_gb = [seconds / num_bytes * 1e9 for seconds in took]
        middle = statistics.median(took)
        print(f"{name:18} {statistics.median(per_gb):12,.1f} {_spread(per_gb):>20} {middle / bare:8.3f}")
    print()
    shown = ("bytes_per_token", "utilisation", "redrawn_rows_share", "padding_unpacked", "padding_unpacked_of_texts")
    for name in ("text_mb", "tokens", *shown):
        print(f"{name:26} {values[name]:14,.3f}")
    for name, ratio in ratios.items():
        print(f"{name:26} {ratio:14.2f}")


def _spread(measured: list[float]) -> str:
    return f"{min(measured):,.2f} to {max(measured):,.2f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="file, folder or URL of raw text")
    parser.add_argument("--reader", default="wikiextractor")
    parser.add_argument("--vocabulary", required=True, help="tokenizer.json or vocab.txt")
    parser.add_argument("--peers", default=sys.executable, help="the interpreter that has what is compared with")
    parser.add_argument("--stages", action="store_true", help="also time the optional stages of cleaning and selection")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scan-mtok", type=int, default=100, help="million tokens of a scan: the rows, repeated")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
