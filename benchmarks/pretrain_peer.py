"""A pretraining step beside what a user would pick instead: transformers' Trainer with a BERT of equal shape.

    python benchmarks/pretrain_peer.py --source FOLDER --vocabulary vocab.txt --work FOLDER --peers PYTHON
        [--sizes mini,base] [--precisions fp32,bf16] [--rounds 3] [--steps 4] [--json FILE]

Both train on the same store's text, 16 segments of 512 tokens a step, dropout 0.1, vocabulary 30,522, AdamW, clipping,
one process and one thread. Ours is the loop of our workers, without Ray: rows are read, blanks drawn and laid out. The
Trainer has its own collator (15 % of tokens masked) and its defaults. Sides: `token`, the objective that compares;
`glm_multi`, our default mixture, printed beside it; `trainer`; and `trainer, blanks alone`, whose BERT computes logits
of the masked tokens only: what of our lead comes from that. CPU seconds of each step from the end of the one before to
its own end, in turns, each round a process of its own; medians over all steps but the first two of a round. PYTHON: an
environment with transformers and accelerate (`peers.txt`).
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import _revision
import numpy as np

SEGMENTS, LENGTH, WARM_UP = 16, 512, 2
SIDES = ("token", "glm_multi", "trainer", "trainer, blanks alone")


def main() -> None:
    options = _options()
    if options.cell:
        ours(json.loads(options.cell))
        return
    work = Path(options.work).resolve()
    store = prepare(options, work)
    rows = write_rows(store, work / "rows.npy")
    values: dict[str, float] = {}
    ratios: dict[str, float] = {}
    for size in options.sizes.split(","):
        for precision in options.precisions.split(","):
            rates: dict[str, list[float]] = {side: [] for side in SIDES}
            for number in range(options.rounds):
                for side in SIDES if number % 2 == 0 else SIDES[::-1]:
                    rates[side] += measure(side, options, size, precision, store, rows, work)
            print(f"\n{size}, {precision}: source tokens per CPU second")
            for side, found in rates.items():
                median = statistics.median(found)
                values[f"{size}_{precision}_{side.replace(', ', '_').replace(' ', '_')}"] = median
                theirs = statistics.median(rates["trainer"])
                print(f"{side:24} {median:8.0f}  ({min(found):.0f} to {max(found):.0f})  {median / theirs:5.2f}")
            ratios[f"{size}_{precision}"] = statistics.median(rates["token"]) / statistics.median(rates["trainer"])
    if options.json:
        report = {"name": "pretrain_peer", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": ratios}, indent=2))


def prepare(options: argparse.Namespace, work: Path) -> str:
    """The store of the text, prepared where it is not there yet."""
    root = work / "data"
    if not list(root.glob("stores/*/manifest.json")):
        sources = json.dumps([{"reader": options.reader, "url": str(Path(options.source).resolve())}])
        vocabulary = f"--data.tokenizer.url={Path(options.vocabulary).resolve()}"
        words = [f"--data.root={root}", f"--data.sources={sources}", vocabulary, "--tracking.enabled=false"]
        _run([sys.executable, "workflows/prepare.py", *words])
    (manifest,) = root.glob("stores/*/manifest.json")
    return str(manifest.parent)


def write_rows(store: str, file: Path, count: int = 2048) -> Path:
    """int32 [count, 512]: the tokens of the store's training text, one document behind the other."""
    from pipelines.store.format import TokenStore

    if not file.exists():
        split = TokenStore.open(store).train
        parts, size = [], 0
        for group in range(len(split.group_rows)):
            tokens = split.read_group(group).tokens
            parts.append(tokens)
            size += len(tokens)
            if size >= count * LENGTH:
                break
        np.save(file, np.concatenate(parts)[: size // LENGTH * LENGTH].reshape(-1, LENGTH)[:count].astype(np.int32))
    return file


def measure(
    side: str, options: argparse.Namespace, size: str, precision: str, store: str, rows: Path, work: Path
) -> list[float]:
    """Source tokens per CPU second of each step."""
    from glm_model.config import sized

    steps = options.steps + WARM_UP
    cell = {"size": size, "precision": precision, "steps": steps}
    if side.startswith("trainer"):
        shape = asdict(sized(size)) | {"vocab_size": 30522}
        blanks_alone = side != "trainer"
        asked = json.dumps(cell | {"shape": shape, "rows": str(rows), "segments": SEGMENTS, "alone": blanks_alone})
        words = [options.peers, str(Path(__file__).with_name("peers.py")), "trainer", asked, options.vocabulary]
    else:
        asked = json.dumps(cell | {"mixture": "glm" if side == "token" else side, "store": store, "work": str(work)})
        words = [sys.executable, __file__, "--cell", asked]
    found = json.loads(_run(words).splitlines()[-1])
    rates = [tokens / cpu_s for tokens, cpu_s in zip(found["tokens"], found["cpu_s"], strict=True)][WARM_UP:]
    print(f"{size} {precision} {side}: {statistics.median(rates):.0f} tokens per CPU second", flush=True)
    return rates


def ours(cell: dict) -> None:
    """Train for some steps as a worker does, and print what each of them took: {tokens, cpu_s}."""
    import tempfile

    import torch

    from infra.console import Console, ConsoleConfig
    from infra.tracking import NOT_TRACKED
    from pipelines.store.format import TokenStore
    from workflows.runs.launch import job_of
    from workflows.runs.run import Run
    from workflows.runs.setup import resolve_setup
    from workflows.settings.command_line import read_recipe
    from workflows.settings.recipe import Recipe
    from workflows.training.ranks import Ranks
    from workflows.training.worker import Worker

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="glm-step-", dir=cell["work"]) as folder:
        sys.argv = [
            sys.argv[0],
            f"--run.storage_path={folder}",
            f"--blanks.mixture={cell['mixture']}",
            f"--model.size={cell['size']}",
            f"--train.precision={cell['precision']}",
            f"--train.batch_tokens={SEGMENTS * LENGTH}",
            "--train.tokens=100M",
            "--train.num_workers=1",
            "--train.hang_s=0",
            "--tracking.enabled=false",
        ]
        recipe = read_recipe(Recipe, description="", common=(), flags={}).config
        setup = resolve_setup(recipe, TokenStore.open(cell["store"]), Console(ConsoleConfig(quiet=True)))
        worker = Worker(job_of(setup, Run.of(recipe, "run"), NOT_TRACKED, link=None), Ranks(0, 1, torch.device("cpu")))
        tokens, cpu_s, before, seen = [], [], time.process_time(), 0.0
        for item in worker.steps():
            worker.advance(item)
            now, reached = time.process_time(), worker.training.points(worker.step)["data/tokens"]
            tokens.append(reached - seen)
            cpu_s.append(now - before)
            before, seen = now, reached
            if worker.step == cell["steps"]:
                break
        worker.close()
    print(json.dumps({"tokens": tokens, "cpu_s": cpu_s}))


def _run(words: list[str]) -> str:
    """What it prints; ends the program where it fails."""
    environment = _revision.environment(_revision.ROOT) | {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128"}
    done = subprocess.run(words, cwd=_revision.ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {' '.join(words[:3])} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", help="folder of text")
    parser.add_argument("--reader", default="wikiextractor")
    parser.add_argument("--vocabulary", help="vocab.txt of bert-base-uncased")
    parser.add_argument("--work", help="folder for the store; it is kept")
    parser.add_argument("--peers", default=sys.executable, help="the interpreter that has transformers")
    parser.add_argument("--sizes", default="mini,base")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="of a round, behind two that warm up")
    parser.add_argument("--json", help="write the figures to this file")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.cell and not (options.source and options.vocabulary and options.work):
        parser.error("--source, --vocabulary and --work are needed")
    return options


if __name__ == "__main__":
    main()
