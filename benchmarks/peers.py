"""What `store.py` compares with, for an interpreter of its own: it imports nothing of ours and prints one JSON line.

    python benchmarks/peers.py installed                              # {name: version or why not}
    python benchmarks/peers.py datatrove TEXT TOKENIZER OUT           # {cpu_s, tokens}
    python benchmarks/peers.py mds_write ROWS OUT COPIES              # {tokens}
    python benchmarks/peers.py mds_read ROWS iterate|by_index         # {cpu_s, tokens}

CPU seconds of the process and its ended children, without imports.
"""

import glob
import importlib.util
import json
import os
import sys
import types
from collections.abc import Callable
from importlib.metadata import version

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def main() -> None:
    name, *arguments = sys.argv[1:]
    steps: dict[str, Callable[..., dict]] = {
        "installed": installed,
        "datatrove": datatrove,
        "mds_write": mds_write,
        "mds_read": mds_read,
    }
    print(json.dumps(steps[name](*arguments)))


def installed() -> dict[str, str]:
    """Version of each contender, or why it cannot be imported."""
    found = {}
    for name, probe in (("datatrove", _import_datatrove), ("mosaicml-streaming", _import_streaming)):
        try:
            probe()
            found[name] = version(name)
        except ImportError as error:
            found[name] = f"left out: {error}"
    return found


def datatrove(text: str, tokenizer: str, out: str) -> dict[str, float]:
    """Tokenise the Parquet files of a folder with its document tokenizer, in one task; documents are not shuffled."""
    executor, reader, writer = _import_datatrove()
    before = _cpu_s()
    executor(
        pipeline=[
            reader(text, glob_pattern="unit-*[0-9].parquet", read_metadata=False),
            writer(out, tokenizer_name_or_path=tokenizer, shuffle_documents=False),
        ],
        logging_dir=f"{out}/logs",
    ).run()
    took = _cpu_s() - before
    return {"cpu_s": took, "tokens": sum(os.path.getsize(path) for path in glob.glob(f"{out}/*.ds")) // 2}


def mds_write(rows: str, out: str, copies: str) -> dict[str, int]:
    """The tokens of each row of our shards as one sample, all of them `copies` times."""
    import pyarrow.parquet as pq

    writer, _ = _import_streaming()
    num_bytes = 0
    with writer(out=out, columns={"tokens": "bytes"}) as file:
        for _ in range(int(copies)):
            for path in sorted(glob.glob(f"{rows}/*.parquet")):
                for row in pq.read_table(path, columns=["tokens"])["tokens"].to_pylist():
                    file.write({"tokens": row})
                    num_bytes += len(row)
    return {"tokens": num_bytes // 2}


def mds_read(rows: str, way: str) -> dict[str, float]:
    """All samples in order into one array: as a training loop gets them, or one index after the other without the
    threads that prepare them. Opening the data set and a first pass are not counted.
    """
    import numpy as np

    _, dataset = _import_streaming()
    samples = dataset(local=rows, shuffle=False, batch_size=1)
    capacity = sum(os.path.getsize(path) for path in glob.glob(f"{rows}/*.mds")) // 2
    flat, end = np.zeros(capacity, np.uint16), 0
    for index in range(len(samples)):  # it checks each shard once: not counted
        samples[index]
    before = _cpu_s()
    for sample in samples if way == "iterate" else (samples[index] for index in range(len(samples))):
        row = np.frombuffer(sample["tokens"], np.uint16)
        flat[end : end + len(row)] = row
        end += len(row)
    return {"cpu_s": _cpu_s() - before, "tokens": end}


def _import_datatrove():
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer

    return LocalPipelineExecutor, ParquetReader, DocumentTokenizer


def _import_streaming():
    """Its package file imports torchvision for image data sets, which must match torch's build: that is passed over."""
    spec = importlib.util.find_spec("streaming")
    if spec is None:
        raise ImportError("No module named 'streaming'")
    if "streaming" not in sys.modules:
        package = types.ModuleType("streaming")
        package.__path__ = list(spec.submodule_search_locations or [])
        sys.modules["streaming"] = package
    from streaming.base import MDSWriter, StreamingDataset

    return MDSWriter, StreamingDataset


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    main()
