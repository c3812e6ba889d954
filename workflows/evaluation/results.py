"""The scores of evaluations as values: for the table on screen, the JSON file, the page and MLflow alike."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from infra.console import counted, duration
from pipelines.metrics.calibration import calibration
from pipelines.metrics.items import judged
from pipelines.metrics.known import METRICS as KNOWN
from pipelines.metrics.known import shown, shown_interval
from pipelines.metrics.scores import score_choices, score_written, scores
from pipelines.metrics.superglue import METRICS, superglue_average
from pipelines.metrics.written.lengths import Lengths, lengths
from workflows.answering.writing import judged_text
from workflows.evaluation.evaluation import Evaluated

_NONE = "-"


@dataclass(frozen=True)
class Result:
    """A score of a model on a task, with all that it is to be read beside."""

    model: str
    task: str
    split: str
    pattern: int
    is_default: bool
    """Whether this is the pattern that the recipe or the reference names."""
    metric: str
    value: float
    low: float | None
    """The 95 % interval over items."""
    high: float | None
    n: int
    one_answer: dict[str, float]
    """What each label word, or label where none is written, gets that answers everything; where texts are generated,
    what each baseline gets; empty where items have candidates of their own.
    """
    majority: float | None
    """What the most frequent class gets; where items have candidates of their own, chance; None: nothing is chosen."""
    bag_of_words: float | None
    without_context: float | None
    """What the model gets that is shown the items without public context; None where that was not asked."""
    started_from: str
    selected_by: str
    run: str
    step: int | None
    variant: str = ""
    """Which variant of the metric this is: the signature of sacrebleu, the rules of ROUGE."""


@dataclass(frozen=True)
class Counts:
    """What else the items of an evaluation tell."""

    model: str
    task: str
    pattern: int
    items: int
    unknown: int
    """Without a known gold answer."""
    without_question: int
    cut: int
    """Items whose context was shortened."""
    tied: int
    """Items with several equally likely best candidates."""
    ece: float | None
    """Calibration of the labels' shares (`pipelines.metrics.calibration`); None without labels or gold answers."""
    brier: float | None
    seconds: float
    """Work of all workers together."""
    url: str
    lengths: Lengths | None = None
    """How long the texts are that were generated."""


def results_of(one: Evaluated) -> list[Result]:
    """The scores of an evaluation; none where no gold answer is known."""
    task, model = one.asked.task, one.model
    classes = len(task.labels)
    found = scores(one.items, task.metrics, classes=classes)
    if not found:
        return []
    items, words = judged(one.items), task.pattern(one.pattern).words
    less = scores(one.without_context.items, task.metrics, classes=classes) if one.without_context else []
    without_context = {score.metric: score.value for score in less}
    baseline = _baseline(one, items)
    return [
        Result(
            model=model.name,
            task=task.name,
            split=one.asked.split,
            pattern=one.pattern,
            is_default=one.pattern == task.default_pattern,
            metric=score.metric,
            value=score.value,
            low=score.interval.low if score.interval else None,
            high=score.interval.high if score.interval else None,
            n=score.n,
            one_answer=_written_by_baselines(score.metric, one, items)
            or dict(zip((words.get(label, label) for label in task.labels), score.one_answer, strict=True)),
            majority=score.majority,
            bag_of_words=None if baseline is None else score_choices(score.metric, items, baseline, classes=classes),
            without_context=without_context.get(score.metric),
            started_from=model.started_from,
            selected_by=model.selected_for(one.asked.split),
            run=model.run,
            step=model.step,
            variant=score.variant,
        )
        for score in found
    ]


def counts_of(one: Evaluated) -> Counts:
    asked = one.items.filter(one.items["reason"].is_null())
    task = one.asked.task  # of what is written by itself there are no shares
    calibrated = calibration(one.items, classes=len(task.labels) if task.kind == "choose" else 0)
    return Counts(
        model=one.model.name,
        task=one.asked.task.name,
        pattern=one.pattern,
        items=len(one.items),
        unknown=asked["gold"].null_count,
        without_question=len(one.items) - len(asked),
        cut=int((asked["cut"].to_numpy() > 0).sum()),
        tied=int(asked["tied"].to_numpy().sum()),
        ece=calibrated.ece if calibrated else None,
        brier=calibrated.brier if calibrated else None,
        seconds=one.seconds,
        url=one.url,
        lengths=lengths(one.items),
    )


def counts_line(one: Counts) -> str:
    """What a screen says of the items of an evaluation."""
    told = {"without a question": one.without_question, "without a gold answer": one.unknown, "cut": one.cut}
    told |= {"undecided": one.tied}
    notes = [f"{count:,} {what}" for what, count in told.items() if count]
    if one.ece is not None:
        notes.append(f"calibration error {one.ece:.1f}, Brier {one.brier:.1f}")
    if one.lengths:
        share = 100 * one.lengths.without_end / one.lengths.blanks
        notes.append(f"{one.lengths.without_end:,} of {one.lengths.blanks:,} texts ({share:.1f} %) without an end")
    items = f"{counted(one.items, 'item')} in {duration(one.seconds)} of work"
    return f"{one.model} {one.task} p{one.pattern}: {', '.join([items, *notes])}: {one.url}"


def as_json(
    results: Iterable[Result], over_seeds: Iterable[Any], seen: Iterable[Any], counts: Iterable[Counts]
) -> dict[str, Any]:
    """What scores.json holds. over_seeds: `seeds.SeedResult`; seen: `contamination.Contamination`."""
    results = list(results)
    return {
        "scores": [asdict(one) for one in results],
        "superglue": averages(results),
        "seeds": [asdict(one) for one in over_seeds],
        "contamination": [asdict(one) for one in seen],
        "items": [asdict(one) for one in counts],
    }


def averages(results: Iterable[Result]) -> dict[str, float]:
    """Model -> its SuperGLUE average, where it was asked all eight tasks by their default patterns. Where none was, and
    each task was asked of one model, such as those that were fine-tuned on it: the average of these models.
    """
    scores: dict[str, dict[str, dict[str, float]]] = {}
    for one in results:
        if one.is_default:
            scores.setdefault(one.model, {}).setdefault(one.task, {})[one.metric] = one.value
    found = {model: superglue_average(tasks) for model, tasks in scores.items()}
    known = {model: value for model, value in found.items() if value is not None}
    asked = {task: [tasks[task] for tasks in scores.values() if task in tasks] for task in METRICS}
    together = superglue_average({task: one[0] for task, one in asked.items() if len(one) == 1})
    return known or ({"one model for each task": together} if together is not None else {})


def table_rows(results: Iterable[Result]) -> tuple[list[str], list[list[Any]]]:
    """(columns, rows) for a screen or a page."""
    results = list(results)
    columns = ["model", "task", "pattern", "metric", "score", "95 % interval", "n", "one answer", "bag of words"]
    less = ["without context"] if any(one.without_context is not None for one in results) else []
    rows = [
        [
            one.model,
            f"{one.task} {one.split}",
            f"p{one.pattern}{'' if one.is_default else ', not default'}",
            one.metric,
            shown(one.metric, one.value),
            shown_interval(one.metric, one.low, one.high),
            one.n,
            _one_answer(one),
            _shown(one.bag_of_words),
            *(_shown(one.without_context) for _ in less),
            one.started_from or _NONE,
            one.selected_by or _NONE,
        ]
        for one in results
    ]
    return [*columns, *less, "started from", "selected by"], rows


def _shown(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f}"


def _one_answer(one: Result) -> str:
    """What one answer to all gets: both of two, of more the best one. Of baselines that write the two best."""
    several = 2 if len(one.one_answer) == 2 or KNOWN[one.metric].needs == "written" else 1
    best = sorted(one.one_answer.items(), key=lambda pair: -pair[1])[:several]
    told = ", ".join(f"{word} {value:.1f}" for word, value in best)
    return told or _shown(one.majority)


def _written_by_baselines(metric: str, one: Evaluated, items: pa.Table) -> dict[str, float]:
    """What each baseline that writes gets, for judged items."""
    if KNOWN[metric].needs != "written":
        return {}
    ids, found = items["item"].to_pylist(), {}
    fills = one.asked.task.pattern(one.pattern).has_blanks
    for name, by_item in one.asked.written().items():
        texts = [by_item[item] for item in ids]
        shown_texts = [one.shown_texts[item] for item in ids] if fills else [""] * len(ids)
        written = [judged_text(text, several, fills=fills) for text, several in zip(shown_texts, texts, strict=True)]
        found[name] = score_written(metric, items, written, texts)
    return found


def _baseline(one: Evaluated, items: pa.Table) -> np.ndarray | None:
    """What the bag of words chooses for judged items, in their order."""
    baseline = one.asked.baseline(one.pattern)
    if baseline is None:
        return None
    places = pc.index_in(items["item"], value_set=baseline.ids)  # pyright: ignore[reportAttributeAccessIssue]
    return baseline.choices[places.to_numpy()]
