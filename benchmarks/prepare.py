"""CPU seconds of preparing a corpus against those of the bare tokenizer on the same text, interleaved.

    python benchmarks/prepare.py --source /path/to/enwiki --vocabulary vocab.txt [--repeats 3] [--json FILE]

`prepare` counts the driver and all processes of a local Ray that has started its workers, less what that Ray needs for
idling as long (printed too): reading, decompression, light cleaning, tokenising, packing, writing, blanks of the first
epoch. `bare` is the library's own batch call plus the copy of its ids into one array, with one thread; `tokenizer` is
ours, which looks words up. Both get the whole texts, 4,096 at a time (about as many bytes as `prepare` gives them).
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable

_IDLE_S = 5.0

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def main() -> None:
    options = _options()
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
        shutil.rmtree(root)
    assert store is not None
    assert config is not None
    worker_uss = _peak_worker_mib(here, lambda: make(config))
    shutil.rmtree(config.root)
    connect.shutdown(joined)
    medians = {name: statistics.median(values) for name, values in runs.items()}
    looked_up = statistics.median([t / b for t, b in zip(runs["tokenizer"], runs["bare"], strict=True)])
    ratio = statistics.median([p / b for p, b in zip(runs["prepare"], runs["bare"], strict=True)])
    values = {
        "text_mb": size / 1e6,
        "bare_cpu_s": medians["bare"],
        "tokenizer_cpu_s": medians["tokenizer"],
        "prepare_cpu_s": medians["prepare"],
        "prepare_wall_s": medians["wall"],
        "ray_idle_cpu_s": idle_rate * medians["wall"],
        "worker_uss_mib": worker_uss,
        "tokens": store.train.tokens + store.validation.tokens,
    }
    for name, value in values.items():
        print(f"{name:18} {value:14,.1f}")
    print(f"{'tokenizer / bare':18} {looked_up:14.2f}")
    print(f"{'prepare / bare':18} {ratio:14.2f}   (of {options.repeats} interleaved pairs: {_spread(runs)})")
    if options.json:
        ratios = {"prepare_vs_bare": ratio, "tokenizer_vs_bare": looked_up}
        report = {"name": "prepare", "machine": platform.processor() or platform.machine(), "values": values}
        with open(options.json, "w") as file:
            json.dump(report | {"ratios": ratios}, file, indent=2)


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


def _spread(runs: dict[str, list[float]]) -> str:
    ratios = sorted(p / b for p, b in zip(runs["prepare"], runs["bare"], strict=True))
    return f"{ratios[0]:.2f} to {ratios[-1]:.2f}"


if __name__ == "__main__":
    main()
