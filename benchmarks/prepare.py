"""CPU seconds of preparing a corpus against those of the bare tokenizer on the same text, interleaved.

    python benchmarks/prepare.py --source /path/to/enwiki --vocabulary vocab.txt [--repeats 3] [--base REV]
        [--peers PYTHON] [--json FILE]

`prepare` counts the driver and all processes of a local Ray that has started its workers, less what that Ray needs for
idling as long (printed too): reading, decompression, light cleaning, tokenising, packing, writing, blanks of the first
epoch. `bare` is the library's own batch call plus the copy of its ids into one array, with one thread; `tokenizer` is
ours, which looks words up. Both get the whole texts, 4,096 at a time (a third of the bytes that `prepare` gives them).

With --peers, datatrove's DocumentTokenizer reads the cleaned text of the same round, in one task and an interpreter of
its own (`peers.txt` says how); it neither reads raw files nor cleans, segments, packs, or draws blanks. With --base,
each round is this script of an earlier revision and of this tree, in turns which first; c1f8ea3, the default of the
other benchmarks, needs jsonargparse besides.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _peers
import _revision

_IDLE_S = 5.0

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def main() -> None:
    options = _options()
    found = beside(options) if options.base else measure(options)
    if options.json:
        report = {"name": "prepare", "machine": platform.processor() or platform.machine()}
        with open(options.json, "w") as file:
            json.dump(report | found, file, indent=2)


def beside(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Values and ratios of this tree, and the speed of an earlier revision's: medians over rounds."""
    found: dict[str, list[dict[str, dict[str, float]]]] = {"base": [], "ours": []}
    words = [f"--source={options.source}", f"--vocabulary={options.vocabulary}", f"--reader={options.reader}"]
    with _revision.checkout(options.base) as base, tempfile.TemporaryDirectory(prefix="glm-benchmark-") as folder:
        trees = {"base": (base, []), "ours": (_revision.ROOT, [f"--peers={options.peers}"] if options.peers else [])}
        for number in range(options.repeats):
            for side in trees if number % 2 == 0 else reversed(trees):
                tree, more = trees[side]
                report = Path(folder, "report.json")
                command = [sys.executable, "benchmarks/prepare.py", *words, *more, "--repeats=1", f"--json={report}"]
                _revision.call(tree, command)
                found[side].append(json.loads(report.read_text()))
            print(f"round {number + 1} of {options.repeats} is done", flush=True)
    pairs = list(zip(found["base"], found["ours"], strict=True))
    ratios = {"vs_build": [base["values"]["prepare_cpu_s"] / ours["values"]["prepare_cpu_s"] for base, ours in pairs]}
    ratios |= {name: [ours["ratios"][name] for _, ours in pairs] for name in pairs[0][1]["ratios"]}
    values = {name: statistics.median(ours["values"][name] for _, ours in pairs) for name in pairs[0][1]["values"]}
    values["base_prepare_cpu_s"] = statistics.median(base["values"]["prepare_cpu_s"] for base, _ in pairs)
    return _told(values, ratios)


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Values and ratios of this tree."""
    import psutil

    from glm_model.tokenizer import Tokenizer
    from infra.cluster import connect
    from pipelines.blanks.mixture import BlanksConfig
    from pipelines.config import DataConfig, TokenizerConfig
    from pipelines.corpus.reading import read_documents
    from pipelines.corpus.sources import Source, list_inputs
    from pipelines.prepare import preparation_of, prepare
    from pipelines.stages import Runner
    from pipelines.store.format import TokenStore

    def make(config: DataConfig) -> TokenStore:
        return prepare(preparation_of(config, BlanksConfig("glm")), Runner())

    source = Source(options.reader, options.source)
    texts = [item.text for file in list_inputs([source]) for item in read_documents(file) if hasattr(item, "text")]
    size = sum(len(text.encode()) for text in texts)
    # One task at a time, as the bare tokenizer runs: two busy hyper-threads of a core inflate the CPU seconds of both.
    joined = connect.connect(connect.ClusterConfig(local_cpus=1), min_cpus=1)
    here = psutil.Process()
    before = _tree_cpu_s(here)
    time.sleep(_IDLE_S)
    idle_rate = (_tree_cpu_s(here) - before) / _IDLE_S
    runs: dict[str, list[float]] = {"bare": [], "tokenizer": [], "prepare": [], "wall": []}
    with tempfile.TemporaryDirectory(prefix="glm-benchmark-") as folder:  # workers load their libraries
        make(_one_file(folder, options.vocabulary))
    store = config = None
    for _ in range(options.repeats):
        tokenizer = Tokenizer.load(options.vocabulary)
        for name, encode in (("bare", tokenizer.encode_batch_by_library), ("tokenizer", tokenizer.encode_batch)):
            started = time.process_time()
            for first in range(0, len(texts), 4096):
                encode(texts[first : first + 4096])
            runs[name].append(time.process_time() - started)
        root = tempfile.mkdtemp(prefix="glm-benchmark-")
        config = DataConfig(sources=[source], root=root, tokenizer=TokenizerConfig(url=options.vocabulary))
        before, started_at = _tree_cpu_s(here), time.perf_counter()
        store = make(config)
        runs["wall"].append(time.perf_counter() - started_at)
        runs["prepare"].append(_tree_cpu_s(here) - before - idle_rate * runs["wall"][-1])
        if options.peers:
            runs.setdefault("datatrove", []).append(_datatrove_cpu_s(options.peers, root, store))
        shutil.rmtree(root)
    assert store is not None
    assert config is not None
    worker_uss = _peak_worker_mib(here, lambda: make(config))
    shutil.rmtree(config.root)
    connect.shutdown(joined)
    medians = {name: statistics.median(values) for name, values in runs.items()}
    compared = {"prepare_vs_bare": ("prepare", "bare"), "tokenizer_vs_bare": ("tokenizer", "bare")}
    if options.peers:
        compared["vs_datatrove"] = ("datatrove", "prepare")
    ratios = {name: [a / b for a, b in zip(runs[x], runs[y], strict=True)] for name, (x, y) in compared.items()}
    values = {
        "text_mb": size / 1e6,
        "bare_cpu_s": medians["bare"],
        "tokenizer_cpu_s": medians["tokenizer"],
        "prepare_cpu_s": medians["prepare"],
        "prepare_wall_s": medians["wall"],
        "ray_idle_cpu_s": idle_rate * medians["wall"],
        "worker_uss_mib": worker_uss,
        "tokens": store.train.tokens + store.validation.tokens,
        **({"datatrove_cpu_s": medians["datatrove"]} if options.peers else {}),
    }
    return _told(values, ratios)


def _told(values: dict[str, float], ratios: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """The values, and the medians of the ratios; both are printed."""
    for name, value in values.items():
        print(f"{name:18} {value:14,.1f}")
    for name, several in ratios.items():
        print(f"{name:18} {statistics.median(several):14.2f}   ({min(several):.2f} to {max(several):.2f})")
    return {"values": values, "ratios": {name: statistics.median(several) for name, several in ratios.items()}}


def _datatrove_cpu_s(python: str, root: str, store: Any) -> float:
    """CPU seconds of datatrove's tokenizer on the cleaned text below root. Ends the program where it fails."""
    (text,) = Path(root, "text").iterdir()
    with tempfile.TemporaryDirectory(prefix="glm-benchmark-") as out:
        found = _peers.ask(python, "datatrove", str(text), f"{store.url}/tokenizer.json", out)
    assert found["tokens"] > 0.9 * (store.train.tokens + store.validation.tokens), "datatrove has the same texts"
    return found["cpu_s"]


def _one_file(folder: str, vocabulary: str):
    """The settings of a one-file corpus in that folder."""
    from pipelines.config import DataConfig, TokenizerConfig
    from pipelines.corpus.sources import Source

    with open(f"{folder}/a.txt", "w") as file:
        file.write("A text that is long enough to be kept. " * 2000)
    return DataConfig(
        sources=[Source("text", f"{folder}/a.txt")],
        root=f"{folder}/out",
        tokenizer=TokenizerConfig(url=vocabulary),
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", required=True, help="file, folder or URL of raw text")
    parser.add_argument("--reader", default="wikiextractor")
    parser.add_argument("--vocabulary", required=True, help="tokenizer.json or vocab.txt")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--base", help="an earlier revision, such as c1f8ea3")
    parser.add_argument("--peers", help="the interpreter that has datatrove")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


def _tree_cpu_s(root) -> float:
    """User and system seconds of a process and all its descendants, ended ones included."""
    import psutil

    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _peak_worker_mib(root, work: Callable[[], object]) -> float:
    """The largest private memory that a Ray worker was seen to have while `work` ran, four looks a second."""
    done = threading.Event()
    seen = [0.0]

    def watch() -> None:
        while not done.wait(0.25):
            seen.append(_largest_worker_mib(root))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(seen)


def _largest_worker_mib(root) -> float:
    """Private memory (USS) of the largest Ray worker."""
    import psutil

    largest = 0.0
    for process in root.children(recursive=True):
        try:
            if process.name().startswith("ray::"):
                largest = max(largest, process.memory_full_info().uss / 2**20)
        except psutil.Error:
            continue
    return largest


if __name__ == "__main__":
    main()
