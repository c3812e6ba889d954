"""What pretraining is worth, by the number of labels: one model fine-tuned in several forms, beside a bag of words.

    python benchmarks/labels.py --model runs/<run> --sst2 FOLDER --ag-news FOLDER --to FOLDER [--counts 100 1000 all]
        [--seeds 1 2 3] [--plot FILE.svg] [--json FILE]

Forms: `cloze` (the label word is written into the pattern's mask), `head` (a classification head on the same weights),
`random` (cloze from random weights of the same shape). Each task, form and number of labels is a campaign over seeds in
FOLDER/runs, so the same command continues; seeds also draw the labels. SST-2 is reported on its dev split of 872
sentences; AG News, one file, on the sixth of its rows that hashes make the test split. Nothing is chosen on the
reported split: epochs and rate are fixed below for every form, and the last weights are taken where fewer than 200
items could be held out. The intervals in the plot are those of a t distribution over seeds.
"""

import argparse
import csv
import itertools
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from infra import config
from infra.console import Console
from pipelines.metrics.bag_of_words import bag_of_words
from pipelines.questions.splits import find_splits
from workflows.finetuning.items import labelled
from workflows.finetuning.setup import resolve_finetune
from workflows.settings.finetune import FinetuneRecipe

ROOT = Path(__file__).resolve().parents[1]
FORMS = {"cloze": [], "head": ["--task.head=true"], "random": ["--model.random=true"]}
REPORTED = {"sst2": "dev", "ag_news": "test"}
Scores = dict[tuple[str, str, int | None], list[float]]
"""(task, form, number of labels) -> the accuracy of each seed."""
_BAG = "bag of words"
_EPOCHS = {100: 20, 1000: 10}  # all labels: 3
_RATE = "3e-4"


def main() -> None:
    options = _options()
    data = {"sst2": options.sst2, "ag_news": options.ag_news}
    counts = [None if count == "all" else int(count) for count in options.counts]
    scores: Scores = {}
    for task, labels, form in itertools.product(data, counts, FORMS):
        settings = _settings(task, form, labels, data[task], options.model)
        scores[task, form, labels] = _campaign(f"{task}-{form}-{labels or 'all'}", task, settings, options)
        if form == "cloze":  # the same labels for all forms
            scores[task, _BAG, labels] = [_bag_of_words(settings, seed, REPORTED[task]) for seed in options.seeds]
    values = {f"{task}_{form.replace(' ', '_')}_{n or 'all'}": found for (task, form, n), found in scores.items()}
    for name, found in values.items():
        spread = f"{statistics.mean(found):6.1f} +- {_half_interval(found):4.1f}"
        print(f"{name:32} {spread}   of seeds: {', '.join(f'{one:.1f}' for one in found)}")
    if options.plot:
        _draw(scores, counts, Path(options.plot))
    if options.json:
        report = {"name": "labels", "machine": platform.processor() or platform.machine(), "seeds": values}
        means = {name: statistics.mean(found) for name, found in values.items()}
        Path(options.json).write_text(json.dumps(report | {"values": means, "ratios": {}}, indent=2))


def _settings(task: str, form: str, labels: int | None, data: str, model: str) -> list[str]:
    """Those of finetune.py that all seeds share. labels: None takes all."""
    return [
        f"--config={ROOT}/workflows/recipes/tasks/{task}.yaml",
        f"--task.data={data}",
        f"--model.init_from={model}",
        f"--optim.lr={_RATE}",
        f"--train.epochs={_EPOCHS.get(labels or 0, 3)}",
        "--train.num_workers=1",
        "--tracking.enabled=false",
        *([f"--train.items={labels}"] if labels else []),
        *FORMS[form],
    ]


def _campaign(name: str, task: str, settings: list[str], options: argparse.Namespace) -> list[float]:
    """The accuracy of each seed on the reported split."""
    runs = Path(options.to).resolve() / "runs"
    own = [f"--run.name={name}", f"--run.storage_path={runs}"]
    asked = [f"--campaign.seeds={options.seeds}", f"--campaign.split={REPORTED[task]}"]
    _command("finetune.py", *settings, *own, *asked)
    with open(runs / name / "cells.csv", newline="") as cells:
        return [float(cell["score"]) for cell in csv.DictReader(cells) if cell["metric"] == "accuracy"]


def _bag_of_words(settings: list[str], seed: int, split: str) -> float:
    """Its accuracy on the reported split, taught by the items that the models of this seed were taught by."""
    argv = [*settings, f"--train.seed={seed}"]
    recipe = config.parse(FinetuneRecipe, description="", argv=argv).config
    setup = resolve_finetune(recipe, Console())
    splits = find_splits(recipe.task.data or "", recipe.task.splits, recipe.task.shares)
    asked = labelled(recipe.task, setup.task, splits, split, setup.tokenizer, setup.shape.positions, Console())
    taught = [question.item for question in (*setup.selection.train, *setup.selection.held_out)]
    choose = bag_of_words(setup.task, setup.task.pattern(), taught)
    assert choose is not None, f"the labels of seed {seed} are of one class alone"
    choices = choose([question.item for question in asked])
    return 100 * float(np.mean(choices == np.array([question.gold for question in asked])))


def _command(script: str, *arguments: str) -> None:
    """Run a script of this tree; ends the program where it fails."""
    done = subprocess.run([sys.executable, str(ROOT / "workflows" / script), *arguments], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def _draw(scores: Scores, counts: list[int | None], path: Path) -> None:
    """A panel for each task: accuracy over the number of labels, the mean over seeds and its 95 % interval."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(REPORTED)), REPORTED, strict=True):
        for form in (*FORMS, _BAG):
            found = [scores[task, form, count] for count in counts]
            half = [_half_interval(one) for one in found]
            means = [statistics.mean(one) for one in found]
            axes.errorbar(range(len(counts)), means, half, label=form, marker="o", capsize=3)
        axes.set(title=task, xlabel="labels", xticks=range(len(counts)), xticklabels=[str(n or "all") for n in counts])
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("accuracy, %")
    figure.axes[0].legend()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "labels"}):
        figure.savefig(path, metadata={"Date": None})


def _half_interval(values: list[float]) -> float:
    """Half the width of the 95 % interval of a mean over seeds."""
    from scipy.stats import t

    if len(values) < 2:
        return 0.0
    return float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a pretrained run or model folder")
    parser.add_argument("--sst2", required=True, help="folder with train.tsv and dev.tsv, also compressed")
    parser.add_argument("--ag-news", required=True, help="folder with one CSV file")
    parser.add_argument("--to", required=True, help="folder for runs and evaluations")
    parser.add_argument("--counts", nargs="+", default=["100", "1000", "all"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--plot", help="draw the curves into this SVG file")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
