"""Preparation of 10^3 to 10^6 documents: rate and memory, which should not grow with the corpus.

    python benchmarks/scale.py --vocabulary vocab.txt [--documents 1000,10000,100000,1000000] [--duplicates near]
        [--json FILE]

Documents of about 500 bytes, words drawn from the vocabulary by Zipf's law, one in a hundred said before; JSON lines in
files of 20 MB. Memory is the private memory (USS) of the driver and of the largest worker, four looks a second. Wall
time of a local Ray with two tasks at once that has started its workers.
"""

import argparse
import json
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from infra.cluster import connect
from infra.config import Count
from pipelines.blanks.mixture import BlanksConfig
from pipelines.config import DataConfig, TokenizerConfig
from pipelines.corpus.sources import Source
from pipelines.prepare import preparation_of, prepare
from pipelines.selection.config import SelectConfig
from pipelines.stages import Runner

_WORDS, _FILE_BYTES = 100, 20_000_000  # words of a document: about 500 bytes


def main() -> None:
    options = _options()
    counts = [int(count) for count in options.documents.split(",")]
    joined = connect.connect(connect.ClusterConfig(local_cpus=2), min_cpus=1)
    values: dict[str, float] = {}
    print(f"{'documents':>10} {'MB':>7} {'s':>7} {'MB/s':>6} {'driver MiB':>11} {'worker MiB':>11}  dropped")
    for count in [min(counts), *counts]:  # the first round starts the workers
        folder = Path(tempfile.mkdtemp(prefix="glm-scale-"))
        size = _write_corpus(folder / "raw", count)
        config = DataConfig(
            sources=[Source("jsonl", str(folder / "raw"))],
            root=str(folder / "data"),
            tokenizer=TokenizerConfig(url=options.vocabulary),
            select=SelectConfig(duplicates=options.duplicates),
            unit_bytes=Count(16_000_000),
        )
        with _Watch() as watch:
            store = prepare(preparation_of(config, BlanksConfig("glm")), Runner())
        figures = (size / 1e6, watch.seconds, size / 1e6 / watch.seconds, watch.driver_mib, watch.worker_mib)
        dropped = {reason: n for source in store.manifest.sources for reason, n in source.dropped.items()}
        print("{:>10,} {:>7.1f} {:>7.1f} {:>6.2f} {:>11.0f} {:>11.0f}".format(count, *figures), dropped, flush=True)
        for name, figure in zip(("mb", "s", "mb_per_s", "driver_mib", "worker_mib"), figures, strict=True):
            values[f"{name}_{count}"] = figure
        shutil.rmtree(folder)
    connect.shutdown(joined)
    if options.json:
        report = {"name": "scale", "machine": platform.processor() or platform.machine(), "values": values}
        Path(options.json).write_text(json.dumps(report | {"ratios": {}}, indent=2))


class _Watch:
    """Seconds, and the largest private memory seen of this process and of its Ray workers."""

    def __enter__(self) -> "_Watch":
        self.driver_mib = self.worker_mib = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._started
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        import psutil

        here = psutil.Process()
        while not self._done.wait(0.25):
            self.driver_mib = max(self.driver_mib, here.memory_full_info().uss / 2**20)
            for process in here.children(recursive=True):
                try:
                    if process.name().startswith("ray::"):
                        self.worker_mib = max(self.worker_mib, process.memory_full_info().uss / 2**20)
                except psutil.Error:
                    continue


def _write_corpus(folder: Path, count: int) -> int:
    """Write the documents; returns the bytes of their text."""
    folder.mkdir(parents=True)
    total = written = 0
    file = None
    for text in _texts(count):
        if file is None or written > _FILE_BYTES:
            if file:
                file.close()
            file = open(folder / f"{total}.jsonl", "w")  # noqa: SIM115
            written = 0
        written += file.write(json.dumps({"text": text}) + "\n")
        total += len(text)
    if file:
        file.close()
    return total


def _texts(count: int) -> Iterator[str]:
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"etaoinshrdlucmfwypvbgkjqxz", np.uint8)
    lengths = rng.integers(2, 9, 50_000)
    words = [rng.choice(letters, size=n, p=_zipf(len(letters))).tobytes().decode() for n in lengths]
    share = _zipf(len(words))
    before: list[str] = []
    for first in range(0, count, 10_000):
        drawn = rng.choice(len(words), size=(min(10_000, count - first), _WORDS), p=share)
        for row in drawn:
            text = " ".join([words[word] for word in row]) + "."
            if len(before) < 1000:
                before.append(text)
            yield before[int(row[0]) % len(before)] if rng.random() < 0.01 else text


def _zipf(count: int) -> np.ndarray:
    weights = 1 / np.arange(1, count + 1)
    return weights / weights.sum()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", required=True, help="tokenizer.json or vocab.txt")
    parser.add_argument("--documents", default="1000,10000,100000,1000000", help="sizes of the corpora")
    parser.add_argument("--duplicates", default="exact", choices=["off", "exact", "near"])
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
