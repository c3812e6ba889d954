"""HellaSwag and BLiMP beside what a user would pick instead: lm-evaluation-harness with a GPT-2 of equal shape.

    python benchmarks/evaluate_peer.py --hellaswag FILE --blimp FILE --tokenizer tokenizer.json --work FOLDER
        --peers PYTHON [--size mini] [--items 500] [--threads 1] [--rounds 3] [--json FILE]

Both read the same items from the same file, drawn with a fixed seed, with the same tokenizer, and ask a model with
random weights of equal width, depth, heads, vocabulary and positions, in fp32. Ours is `evaluate.py` as it is, from
reading the first item to items.parquet. The harness has its own model class for transformers, at the batch size of 1,
8, 32, 64 that took it the least time on these items; its clock begins when the items are read, and it makes no
bootstrap. CPU seconds without start-up and without making the model, in turns, each round a process of its own. A ratio
is the median of the harness's seconds over that of ours: above 1 ours is faster. PYTHON: an environment with lm_eval,
transformers and accelerate (`peers.txt`).
"""

import argparse
import json
import platform
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import _revision

BATCHES = (1, 8, 32, 64)
TASKS = ("hellaswag", "blimp")
_SEED = 0


def main() -> None:
    options = _options()
    values: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for task in options.tasks.split(","):
        file = write_items(task, getattr(options, task), options.items, Path(options.work).resolve() / task)
        tried = {batch: theirs(task, file, options, batch) for batch in BATCHES}
        best = min(tried, key=tried.__getitem__)
        print(f"{task}: the harness at batch sizes " + ", ".join(f"{n}: {s:.1f} s" for n, s in tried.items()))
        seconds: dict[str, list[float]] = {"ours": [], "harness": []}
        for number in range(options.rounds):
            for side in ("ours", "harness")[:: 1 if number % 2 == 0 else -1]:
                took = ours(task, file, options) if side == "ours" else theirs(task, file, options, best)
                seconds[side].append(took)
                print(f"{task} {side}: {took:.2f} CPU s", flush=True)
        for side, found in seconds.items():
            values[f"{task}_{side}_cpu_s"] = statistics.median(found)
        values |= {f"{task}_items": options.items, f"{task}_harness_batch": best}
        pairs = [them / us for us, them in zip(seconds["ours"], seconds["harness"], strict=True)]
        ratios[task] = values[f"{task}_harness_cpu_s"] / values[f"{task}_ours_cpu_s"]
        print(f"{task}: {ratios[task]:.2f} ({min(pairs):.2f} to {max(pairs):.2f})")
    if options.json:
        report = {"name": "evaluate_peer", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": ratios}, indent=2))


def write_items(task: str, data: str, count: int, folder: Path) -> Path:
    """So many items of a task's file as JSON lines that both sides read."""
    from pipelines import tasks
    from pipelines.questions.config import TaskConfig
    from pipelines.questions.rows import read_rows
    from pipelines.questions.task import Item

    rows = getattr(tasks.find(task), "read", read_rows)(str(Path(data).resolve()))
    found = tasks.define(TaskConfig(name=task, data=data), list).items(rows)
    items = [item for _, item in found if isinstance(item, Item)]
    drawn = random.Random(_SEED).sample(items, count)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "dev.jsonl"
    file.write_text("".join(json.dumps(_row(task, number, item)) + "\n" for number, item in enumerate(drawn)))
    return file


def _row(task: str, number: int, item) -> dict:
    candidates = [candidate.strip() for candidate in item.candidates]
    if task == "blimp":
        good, bad = candidates
        return {"sentence_good": good, "sentence_bad": bad, "UID": item.group, "pairID": str(number)}
    if task == "piqa":
        goal = item.fields["before"].removeprefix("Question: ").removesuffix("\nAnswer:")
        return {"goal": goal, "sol1": candidates[0], "sol2": candidates[1], "label": int(item.gold)}
    return {"ind": number, "ctx": item.fields["before"], "endings": candidates, "label": int(item.gold)}


def ours(task: str, file: Path, options: argparse.Namespace) -> float:
    """CPU seconds of `evaluate.py`, as `benchmarks/evaluate.py` counts them."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        words = [f"--task={task}", f"--data={file.parent}", f"--tokenizer={options.tokenizer}", f"--json={report.name}"]
        sizes = [f"--size={options.size}", f"--threads={options.threads}"]
        run([sys.executable, str(Path(__file__).with_name("evaluate.py")), *words, *sizes], options.threads)
        found = json.loads(Path(report.name).read_text())
    assert found["items"] == options.items, f"expected {options.items} items, ours asked {found['items']}"
    return found["cpu_s"]


def theirs(task: str, file: Path, options: argparse.Namespace, batch: int) -> float:
    """CPU seconds of the harness."""
    from glm_model import Tokenizer
    from glm_model.config import sized

    rows = -(-Tokenizer.load(options.tokenizer).vocab_size // 128) * 128
    shape = asdict(sized(options.size, vocab_size=rows))
    asked = {"task": task, "file": str(file), "tokenizer": options.tokenizer, "shape": shape, "batch": batch}
    script = str(Path(__file__).with_name("task_peers.py"))
    words = [options.peers, script, "harness", json.dumps(asked | {"threads": options.threads})]
    return json.loads(run(words, options.threads).splitlines()[-1])["cpu_s"]


def run(words: list[str], threads: int) -> str:
    """What it prints; ends the program where it fails."""
    environment = _revision.environment(_revision.ROOT) | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(words, cwd=_revision.ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(words[:3])} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hellaswag", help="hellaswag_val.jsonl, or text of six lines an item")
    parser.add_argument("--blimp", help="BLiMP's pairs as JSON lines")
    parser.add_argument("--tokenizer", required=True, help="tokenizer.json with [SEP] and [PAD]")
    parser.add_argument("--work", required=True, help="folder for the items that are drawn")
    parser.add_argument("--peers", default=sys.executable, help="the interpreter that has lm_eval and transformers")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--size", default="mini")
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    options.tokenizer = str(Path(options.tokenizer).resolve())
    if missing := [task for task in options.tasks.split(",") if not getattr(options, task, None)]:
        parser.error(f"--{missing[0]} is needed: the file of its items")
    return options


if __name__ == "__main__":
    main()
