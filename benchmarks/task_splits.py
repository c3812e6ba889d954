"""What there is of each task's published data: items and groups of every split, its most frequent label, and whether a
model can be fine-tuned on it.

    python benchmarks/task_splits.py [--data ../shared/data] [--markdown] [--json FILE]

Items are what is asked, which is not what a file has lines: MultiRC asks each answer to each question about a passage,
and WikiText is one text for each article. Rows that are not items are counted; so are items that train, where these are
others (WSC's true rows, ReCoRD's right answers). --markdown prints the table of docs/task_data.md.
"""

import argparse
import json
import platform
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from infra import config
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.rows import BadRow
from pipelines.questions.splits import split_rows
from pipelines.questions.task import Item, Task
from workflows.settings.finetune import FinetuneRecipe

ROOT = Path(__file__).resolve().parents[1]
# (task or recipe, its place below --data)
PLACES = [
    ("boolq", "superglue/BoolQ"),
    ("cb", "superglue/CB"),
    ("copa", "superglue/COPA"),
    ("multirc", "superglue/MultiRC"),
    ("record", "superglue/ReCoRD"),
    ("rte", "superglue/RTE"),
    ("wic", "superglue/WiC"),
    ("wsc", "superglue/WSC"),
    ("ax_b", "superglue/AX-b"),
    ("ax_g", "superglue/AX-g"),
    *(
        (name.lower(), f"superglue/FewGLUE_32dev/{name}")
        for name in ("BoolQ", "CB", "COPA", "MultiRC", "ReCoRD", "RTE", "WiC", "WSC")
    ),
    ("sst2.yaml", "classification/sst2"),
    ("cola.yaml", "classification/cola"),
    ("ag_news.yaml", "classification/ag_news"),
    ("blimp", "blimp/blimp.even_pairs.jsonl.gz"),
    ("hellaswag", "multichoice/hellaswag_val.first_half.txt.gz"),
    ("piqa", "multichoice/piqa"),
    ("mmlu", "multichoice/mmlu"),
    ("multiple_choice", "multichoice/arc_easy.jsonl"),
    ("multiple_choice", "multichoice/commonsense_qa.jsonl"),
    ("lambada", "lm_eval/lambada_test.first_half.jsonl"),
    ("perplexity", "lm_eval/wikitext-103"),
    ("perplexity", "lm_eval/wikitext-2"),
    ("perplexity", "lm_eval/wikitext-2-raw"),
    ("scitldr.yaml", "seq2seq/scitldr-A"),
    ("xsum.yaml", "seq2seq/xsum_test.first500.jsonl"),
    ("wiki_split", "seq2seq/wiki_split"),
    ("squad", "seq2seq/squad_context_question_answer.first_half.json.gz"),
    ("squad_questions", "seq2seq/squad_context_question_answer.first_half.json.gz"),
    ("infilling", "infilling/yahoo"),
]
_SHOWN = ("train", "dev", "test")


@dataclass(frozen=True)
class Split:
    """What there is of a split."""

    task: str
    place: str
    split: str
    items: int
    groups: int
    """0: no item belongs to a group."""
    labelled: int
    majority: float | None
    """Per cent of the labelled items that have the most frequent label; None: they have candidates of their own."""
    bad: int
    trains: int
    """Items that a model is trained on; 0 for other splits, and where nothing is learned."""


def main() -> None:
    options = _options()
    found = list(splits_of(Path(options.data)))
    for line in markdown(found) if options.markdown else map(_line, found):
        print(line)
    if options.json:
        values = {f"{one.place} {one.split}": asdict(one) for one in found}
        result = {"name": "task_splits", "machine": platform.platform(), "values": values, "ratios": {}}
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


def splits_of(data: Path) -> Iterator[Split]:
    """Every split of PLACES that is there."""
    for name, place in PLACES:
        if not (data / place).exists():
            continue
        settings = _settings(name, str(data / place))
        splits = tasks.find_splits(settings)
        task = tasks.define(settings, lambda: [])
        seen = set()
        for split, file in splits.items():
            if file in seen or (split == "dev32" and splits.get("dev") == file):
                continue
            seen.add(file)
            items = [one for _, one in task.items(split_rows(splits, split, columns=settings.columns))]
            yield _counted(name, place, "all" if _is_one_file(splits) else split, task, items)


def markdown(found: list[Split]) -> list[str]:
    """The table of the page, a line for each place."""
    places: dict[tuple[str, str], dict[str, Split]] = {}
    for one in found:
        places.setdefault((one.task, one.place), {})[one.split] = one
    lines = ["| task | data | train | dev | test | most frequent label of dev | can be fine-tuned |", f"|{'---|' * 7}"]
    for (task, place), splits in places.items():
        counts = [_shown(splits.get(split) or splits.get("all" if split == "dev" else "")) for split in _SHOWN]
        reported = splits.get("dev") or splits.get("all")
        label = "" if reported is None or reported.majority is None else f"{reported.majority:.1f} %"
        learns = "yes" if any(one.trains for one in splits.values()) else _why_not(task)
        cells = [f"`{task}`", place, *counts, label, learns]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _shown(one: Split | None) -> str:
    if one is None:
        return ""
    groups = f" in {one.groups:,} groups" if one.groups else ""
    trains = f", {one.trains:,} train" if one.trains not in (0, one.items) else ""
    return f"{one.items:,}{groups}{trains}"


def _why_not(task: str) -> str:
    return "no: nothing is learned from it" if getattr(tasks.find(task), "ZERO_SHOT", False) else "no train split here"


def _counted(name: str, place: str, split: str, task: Task, found: list[Item | BadRow]) -> Split:
    items = [one for one in found if isinstance(one, Item)]
    known = [item for item in items if item.gold is not None]
    labels = Counter(task.gold_index(item) for item in known)
    learns = split == "train" and not task.zero_shot
    taught = [one for item in known for one in (task.train_items(item) if task.train_items else (item,))]
    return Split(
        task=name,
        place=place,
        split=split,
        items=len(items),
        groups=len({item.group for item in items if item.group}),
        labelled=len(known),
        majority=100 * labels.most_common(1)[0][1] / len(known) if task.labels and known else None,
        bad=len(found) - len(items),
        trains=len(taught) if learns else 0,
    )


def _settings(name: str, data: str) -> TaskConfig:
    if not name.endswith(".yaml"):
        return TaskConfig(name=name, data=data)
    recipe = config.from_yaml(FinetuneRecipe, (ROOT / "workflows" / "recipes" / "tasks" / name).read_text())
    recipe.task.data = data
    return recipe.task


def _is_one_file(splits: dict) -> bool:
    """Whether one file, from which nothing is learned, is every split."""
    return len(splits) > 1 and len({*splits.values()}) == 1


def _line(one: Split) -> str:
    return "  ".join(f"{value}" for value in asdict(one).values())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(ROOT / ".." / "shared" / "data"), help="the folder with the data")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/task_data.md")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
