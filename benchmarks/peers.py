"""What `store.py` and `pretrain_peer.py` compare with, by an interpreter of its own: nothing of ours, one JSON line.

    python benchmarks/peers.py installed                              # {name: version or why not}
    python benchmarks/peers.py datatrove TEXT TOKENIZER OUT           # {cpu_s, tokens}
    python benchmarks/peers.py mds_write ROWS OUT COPIES              # {tokens}
    python benchmarks/peers.py mds_read ROWS iterate|by_index         # {cpu_s, tokens}
    python benchmarks/peers.py trainer ASKED VOCABULARY               # {cpu_s, tokens} of each step

CPU seconds of the process and its ended children, without imports.
"""

import glob
import importlib.util
import json
import os
import sys
import tempfile
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
        "trainer": trainer,
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
    """Tokenise the Parquet files of a folder, without ledgers, with its document tokenizer, in one task; documents are
    not shuffled.
    """
    executor, reader, writer = _import_datatrove()
    before = _cpu_s()
    executor(
        pipeline=[
            reader(text, glob_pattern="*[0-9a-f].parquet", read_metadata=False),
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


def trainer(asked: str, vocabulary: str) -> dict[str, list[float]]:
    """Train a BERT by transformers' Trainer, with its collator and its defaults.

    asked: JSON of a shape (as `GLMConfig`), precision, steps, segments a step, a file of rows, and whether logits are
    computed of the masked tokens alone.
    """
    import time

    import numpy as np
    import torch
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertTokenizerFast,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    class BlanksAlone(BertForMaskedLM):
        def forward(self, input_ids, attention_mask=None, labels=None, **_):
            hidden = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
            is_masked = labels != -100
            logits = self.cls(hidden[is_masked])
            return {"loss": torch.nn.functional.cross_entropy(logits.float(), labels[is_masked]), "logits": logits}

    class Clock(TrainerCallback):
        def __init__(self):
            self.cpu_s, self.last = [], time.process_time()

        def on_step_end(self, *_, **__):
            now = time.process_time()
            self.cpu_s.append(now - self.last)
            self.last = now

    torch.set_num_threads(1)
    cell = json.loads(asked)
    shape, steps, segments = cell["shape"], cell["steps"], cell["segments"]
    rows = np.load(cell["rows"])[: steps * segments]
    config = BertConfig(
        vocab_size=shape["vocab_size"],
        hidden_size=shape["width"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        intermediate_size=4 * shape["width"],
        max_position_embeddings=rows.shape[1],
        hidden_dropout_prob=shape["dropout"],
        attention_probs_dropout_prob=shape["attention_dropout"],
    )
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model=(BlanksAlone if cell["alone"] else BertForMaskedLM)(config),
            args=TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                per_device_train_batch_size=segments,
                bf16=cell["precision"] == "bf16",
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
            ),
            data_collator=DataCollatorForLanguageModeling(BertTokenizerFast(vocabulary)),
            train_dataset=[{"input_ids": row.tolist()} for row in rows],
            callbacks=[clock],
        ).train()
    return {"cpu_s": clock.cpu_s, "tokens": [segments * rows.shape[1]] * steps}


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
