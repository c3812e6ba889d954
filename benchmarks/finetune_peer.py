"""An epoch of fine-tuning beside what a user would pick instead: transformers' Trainer with a BERT of equal shape.

    python benchmarks/finetune_peer.py --boolq FILE --rte FILE --vocabulary vocab.txt --work FOLDER --peers PYTHON
        [--size mini] [--items N] [--threads 1] [--rounds 3] [--json FILE]

Both teach the same labelled items once, 16 a step, cut at 256 tokens, from random weights of equal width, depth, heads
and vocabulary, in fp32, with dropout 0.1, AdamW and clipping, in one process. Ours is the loop of our workers, without
Ray, on packed rows: the label word is written into the pattern's mask. The Trainer has a classification head and its
own collator, which pads to the longest item of a batch; `grouped` puts items of about one length together
(`group_by_length`). CPU seconds of the epoch behind two steps that warm up, in turns, each round a process of its own.
Items are tokens before either clock runs. A ratio is the median of the Trainer's seconds over that of ours: above 1
ours is faster. PYTHON: an environment with transformers and accelerate (`peers.txt`).
"""

import argparse
import json
import platform
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path

from evaluate_peer import run

BATCH, MOST, WARM_UP = 16, 256, 2
SIDES = {"boolq": ("ours", "trainer"), "rte": ("ours", "trainer", "grouped")}
PAIRS = {"boolq": ("passage", "question"), "rte": ("premise", "hypothesis")}


def main() -> None:
    options = _options()
    if options.cell:
        ours(json.loads(options.cell))
        return
    values: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for task in options.tasks.split(","):
        folder = Path(options.work).resolve() / task
        values[f"{task}_items"] = write_items(task, getattr(options, task), options.items, folder)
        seconds: dict[str, list[float]] = {side: [] for side in SIDES[task]}
        for number in range(options.rounds):
            for side in SIDES[task][:: 1 if number % 2 == 0 else -1]:
                found = measure(task, side, folder, options)
                seconds[side].append(found["cpu_s"])
                values[f"{task}_{side}_padding"] = found["positions"] / found["tokens"]
                print(f"{task} {side}: {found['cpu_s']:.2f} CPU s", flush=True)
        values |= {f"{task}_{side}_cpu_s": statistics.median(found) for side, found in seconds.items()}
        for side in SIDES[task][1:]:
            name = f"finetune_{task}" + ("" if side == "trainer" else f"_{side}")
            pairs = [them / us for us, them in zip(seconds["ours"], seconds[side], strict=True)]
            ratios[name] = statistics.median(seconds[side]) / statistics.median(seconds["ours"])
            padding = [f"{values[f'{task}_{one}_padding']:.2f}" for one in ("ours", side)]
            print(f"{name}: {ratios[name]:.2f} ({min(pairs):.2f} to {max(pairs):.2f}); padding {' and '.join(padding)}")
    if options.json:
        report = {"name": "finetune_peer", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": ratios}, indent=2))


def write_items(task: str, data: str, count: int | None, folder: Path) -> int:
    """The first labelled rows of a task's file: as they are for us (train.jsonl), and as two texts and a number for the
    Trainer (pairs.jsonl). Returns how many.
    """
    from pipelines import tasks

    labels, (first, second) = tasks.find(task).LABELS, PAIRS[task]
    with open(data, encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if "label" in row][:count]
    pairs = [
        {"first": row[first], "second": row[second], "label": labels.index(str(row["label"]).lower())} for row in rows
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for name, some in (("train", rows), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    return len(rows)


def measure(task: str, side: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of an epoch, its tokens, and its positions with padding."""
    from glm_model import Tokenizer
    from glm_model.config import sized

    rows = -(-Tokenizer.load(options.vocabulary).vocab_size // 128) * 128
    shape = asdict(sized(options.size, vocab_size=rows, positions=MOST))
    asked = {"shape": shape, "vocabulary": options.vocabulary, "threads": options.threads}
    if side == "ours":
        words = [sys.executable, __file__, "--cell", json.dumps(asked | {"task": task, "data": str(folder)})]
    else:
        file = str(folder / "pairs.jsonl")
        more = {"file": file, "batch": BATCH, "most": MOST, "grouped": side == "grouped"}
        script = str(Path(__file__).with_name("task_peers.py"))
        words = [options.peers, script, "trainer", json.dumps(asked | more)]
    return json.loads(run(words, options.threads).splitlines()[-1])


def ours(cell: dict) -> None:
    """Fine-tune for an epoch as a worker does, and print {cpu_s, tokens, positions}."""
    import tempfile

    import torch

    from glm_model import GLM, GLMConfig, Tokenizer, save_pretrained
    from infra import config
    from infra.console import Console, ConsoleConfig
    from infra.tracking import NOT_TRACKED
    from workflows.finetuning.run import job_of
    from workflows.finetuning.setup import open_finetuning, resolve_finetune
    from workflows.settings.finetune import FinetuneRecipe
    from workflows.training.ranks import Ranks
    from workflows.training.worker import Worker

    torch.set_num_threads(cell["threads"])
    torch.manual_seed(0)

    def train(folder: str, *length: str) -> dict[str, float]:
        """CPU seconds, tokens, and positions with padding."""
        settings = [
            f"--task.name={cell['task']}",
            f"--task.data={cell['data']}",
            f"--model.init_from={folder}/random",
            f"--train.batch={BATCH}",
            f"--train.micro={BATCH}",
            "--train.precision=fp32",
            "--train.select_on=none",
            "--train.num_workers=1",
            "--train.hang_s=0",
            "--tracking.enabled=false",
            f"--run.storage_path={folder}",
            *length,
        ]
        recipe = config.parse(FinetuneRecipe, description="", argv=settings).config
        setup = resolve_finetune(recipe, Console(ConsoleConfig(quiet=True)))
        job = job_of(setup, open_finetuning(setup, ""), NOT_TRACKED, link=None)
        worker = Worker(job, Ranks(0, 1, torch.device("cpu")))
        tokens = positions = 0
        began = time.process_time()
        for item in worker.steps():
            worker.advance(item)
            tokens += sum(batch.tokens for _, batch in item.micro_batches)
            positions += sum(batch.example.tokens.size for _, batch in item.micro_batches)
        took = time.process_time() - began
        worker.close()
        return {"cpu_s": took, "tokens": tokens, "positions": positions}

    with tempfile.TemporaryDirectory(prefix="glm-finetune-") as folder:
        model = GLM(GLMConfig.from_dict(cell["shape"]))
        save_pretrained(model, f"{folder}/random", Tokenizer.load(cell["vocabulary"]))
        train(folder, f"--train.steps={WARM_UP}")
        print(json.dumps(train(folder, "--train.epochs=1")))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--boolq", help="BoolQ's labelled items: val.jsonl, where train.jsonl is not there")
    parser.add_argument("--rte", help="RTE's train.jsonl")
    parser.add_argument("--vocabulary", help="vocab.txt of bert-base-uncased")
    parser.add_argument("--work", help="folder for the items")
    parser.add_argument("--peers", default=sys.executable, help="the interpreter that has transformers")
    parser.add_argument("--tasks", default=",".join(SIDES))
    parser.add_argument("--size", default="mini")
    parser.add_argument("--items", type=int, help="the first items alone")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        return options
    if missing := [name for name in (*options.tasks.split(","), "vocabulary", "work") if not getattr(options, name)]:
        parser.error(f"--{missing[0]} is needed")
    options.vocabulary = str(Path(options.vocabulary).resolve())
    return options


if __name__ == "__main__":
    main()
