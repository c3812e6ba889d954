"""What a small model learns to write: SciTLDR, WikiSplit and infilling, from pretrained and from random weights.

    python benchmarks/writing.py --model runs/<run> --to FOLDER [--data ../shared/data] [--tasks scitldr ...]
        [--items 1000] [--asked 200] [--epochs 3] [--seeds 1 2 3] [--optim adamw] [--pretrained-alone] [--json FILE]

Each task is a campaign over seeds and model.random in FOLDER/runs, so the same command continues. The first --items
rows of the published train split teach (of WikiSplit those of `tune`, of Yahoo's answers those of `val`, as their train
splits are larger files), and the first --asked rows of the split behind it are reported; nothing is chosen on them: the
rate is fixed, and the last weights are taken. Texts of Yahoo are those of at most 100 words, of which 30 % are drawn.
Beside the models stands what costs nothing: a copy of the source and its first sentence; in infilling the most frequent
word, and the word most frequent between the same neighbours, of the same texts. `fall` is what the bits per byte of the
right texts lack of those from random weights, with the 95 % interval of a bootstrap over seeds and items.
"""

import argparse
import gzip
import json
import platform
import subprocess
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from workflows.evaluation.comparison import compare

ROOT = Path(__file__).resolve().parents[1]
BITS = "bits_per_byte"
_RATES = {"adamw": "1e-3", "muon": "2e-3"}
_WORDS = 100
_STARTS = {"pretrained": "false", "random weights": "true"}
Row = dict[str, float]
"""Metric -> value."""


@dataclass(frozen=True)
class Written:
    """A task of this benchmark."""

    name: str
    """As --tasks has it."""
    module: str
    """Its name in pipelines/tasks."""
    settings: tuple[str, ...]
    train: str
    """Its file below --data."""
    reported: str
    suffix: str
    """The end of its files' names."""
    metrics: tuple[str, ...]
    most_words: int | None = None
    """Longer texts are left out."""


@dataclass(frozen=True)
class Found:
    """What a task came to."""

    rows: dict[str, Row]
    fall: float | None = None
    """In per cent, with its interval; None of fewer than two seeds."""
    low: float = 0.0
    high: float = 0.0


_COMMON = ("rougeLsum", "rouge1", "sacrebleu")
TASKS = (
    Written(
        "scitldr",
        "seq2seq",
        (f"--config={ROOT}/workflows/recipes/tasks/scitldr.yaml", "--task.generation.max_source=192"),
        "seq2seq/scitldr-A/train.jsonl.gz",
        "seq2seq/scitldr-A/dev.jsonl",
        "jsonl",
        (*_COMMON, "sari", "two_sentences", BITS),
    ),
    Written(
        "wiki_split",
        "wiki_split",
        ("--task.generation.max_tokens=96",),
        "seq2seq/wiki_split/tune.tsv.gz",
        "seq2seq/wiki_split/validation.tsv.gz",
        "tsv",
        (*_COMMON, "sari", "two_sentences", BITS),
    ),
    Written(
        "infilling",
        "infilling",
        ("--task.blanks.ratio=0.3", "--task.generation.max_tokens=16"),
        "infilling/yahoo/val.txt.gz",
        "infilling/yahoo/test.first_half.txt.gz",
        "txt",
        ("exact_match", "sacrebleu", BITS),
        most_words=_WORDS,
    ),
)


def main() -> None:
    options = _options()
    found = {}
    for task in TASKS:
        if options.tasks and task.name not in options.tasks:
            continue
        found[task.name] = _measured(task, options)
        print("\n".join(table(task, found[task.name])), flush=True)
    if options.json:
        values = {
            f"{name}_{who}_{metric}".replace(" ", "_"): value
            for name, one in found.items()
            for who, row in one.rows.items()
            for metric, value in row.items()
        }
        ratios = {f"{name}_fall": [one.fall, one.low, one.high] for name, one in found.items()}
        report = {"name": "writing", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": ratios}, indent=2))


def table(task: Written, found: Found) -> list[str]:
    """The lines of a table in Markdown, and one of the fall."""
    names = [name for name in task.metrics if any(name in row for row in found.rows.values())]
    lines = [f"| {task.name} | {' | '.join(f'`{name}`' for name in names)} |", f"|{'---|' * (len(names) + 1)}"]
    for who, row in found.rows.items():
        cells = [f"{row[name]:.{3 if name == BITS else 1}f}" if name in row else "" for name in names]
        lines.append(f"| {who} | {' | '.join(cells)} |")
    if found.fall is not None:
        lines += ["", f"fall of {BITS}: {found.fall:.1f} % ({found.low:.1f} to {found.high:.1f})"]
    return lines


def first_rows(path: Path, count: int, *, most_words: int | None = None) -> list[str]:
    """The first lines of a file, also compressed, that have at most so many words; without their ends."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        kept = (line.rstrip("\n") for line in lines if most_words is None or len(line.split()) <= most_words)
        return list(islice(kept, count))


def _measured(task: Written, options: argparse.Namespace) -> Found:
    """Fine-tune by a campaign, ask all of its models together, and compare those from random weights with the rest."""
    folder, runs = Path(options.to).resolve() / "data" / task.name, Path(options.to).resolve() / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    for split, name, count in (("train", task.train, options.items), ("dev", task.reported, options.asked)):
        rows = first_rows(Path(options.data) / name, count, most_words=task.most_words)
        (folder / f"{split}.{task.suffix}").write_text("".join(f"{row}\n" for row in rows))
    splits = f"{{train: train.{task.suffix}, dev: dev.{task.suffix}}}"
    asked = [*task.settings, f"--task.name={task.module}", f"--task.data={folder}", f"--task.splits={splits}"]
    asked.append(f"--task.metrics={json.dumps(task.metrics)}")
    how = [f"--model.init_from={options.model}", "--model.dropout=0", f"--optim.name={options.optim}"]
    how.append(f"--optim.lr={_RATES[options.optim]}")
    how += [f"--train.epochs={options.epochs}", "--train.select_on=none", "--train.num_workers=1"]
    used = {"pretrained": "false"} if options.pretrained_alone else _STARTS
    cells = [f"--campaign.seeds={options.seeds}", f"--campaign.grid={{model.random: [{', '.join(used.values())}]}}"]
    _command("finetune.py", [*asked, *how, *cells, f"--run.name={task.name}", f"--run.storage_path={runs}"])
    starts = {who: [_cell(task, value, seed) for seed in options.seeds] for who, value in used.items()}
    to = runs / task.name / "scores" / task.module  # where the campaign's answers are: nothing is asked again
    models = [str(runs / name) for names in starts.values() for name in names]
    more = [f"--to={to}", "--contamination=off", "--without_context=false", f"--models={json.dumps(models)}"]
    _command("evaluate.py", [*asked, *more])
    scores = json.loads((to / "scores.json").read_text())["scores"]
    rows = {who: _means(scores, {*names}) for who, names in starts.items()} | _baselines(scores)
    if len(options.seeds) < 2 or len(used) < 2:
        return Found(rows)
    sides = [_cell(task, value, "*") for value in reversed(_STARTS.values())]
    (told,) = compare(sides, str(to), metrics=[BITS])
    fall, high, low = (-100 * one / told.first for one in (told.difference, told.low, told.high))
    return Found(rows, fall, low, high)


def _cell(task: Written, random: str, seed: object) -> str:
    """The name of a cell's run."""
    return f"{task.name}-random={random}-seed={seed}"


def _means(scores: list[dict[str, Any]], models: set[str]) -> Row:
    """Each metric's mean over some models."""
    found: dict[str, list[float]] = {}
    for one in scores:
        if one["model"] in models:
            found.setdefault(one["metric"], []).append(one["value"])
    return {metric: fmean(values) for metric, values in found.items()}


def _baselines(scores: list[dict[str, Any]]) -> dict[str, Row]:
    """What each baseline gets, which is the same beside every model."""
    found: dict[str, Row] = {}
    for one in scores:
        for name, value in one["one_answer"].items():
            found.setdefault(name, {})[one["metric"]] = value
    return found


def _command(script: str, arguments: list[str]) -> None:
    """Run a script of this tree; ends the program where it fails."""
    words = [sys.executable, str(ROOT / "workflows" / script), *arguments, "--tracking.enabled=false"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a pretrained run or model folder")
    parser.add_argument("--to", required=True, help="folder for data, runs and evaluations")
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--tasks", nargs="+", choices=[task.name for task in TASKS], help="some of the tasks alone")
    parser.add_argument("--items", type=int, default=1000, help="rows that teach")
    parser.add_argument("--asked", type=int, default=200, help="rows that are reported")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--optim", choices=[*_RATES], default="adamw")
    parser.add_argument("--pretrained-alone", action="store_true", help="leave out random weights")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
