"""All models on all tasks, one after the other: each model is loaded once, and only if there is something to answer."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from infra.cluster import capacity, connect
from infra.console import Console
from pipelines.questions.config import TaskConfig
from workflows.evaluation.config import EvaluateConfig
from workflows.evaluation.evaluation import Evaluated, evaluate
from workflows.evaluation.models import Model
from workflows.evaluation.tasks import AskedTask, ask_task, pattern_numbers, taught_to, without_context
from workflows.evaluation.workers import Workers


@contextlib.contextmanager
def ray_if_needed(
    num_workers: int, cluster: connect.ClusterConfig, screen: Console, *, use_gpu: bool = False
) -> Iterator[None]:
    """A Ray with room for the workers, where there are several. One works in this process, and needs none: it saves the
    5 s that a local Ray and an actor take to start.
    """
    if num_workers == 1:
        yield
        return
    ray = connect.connect(cluster, min_cpus=num_workers, say=screen.line)
    try:
        capacity.wait_for_capacity(num_workers, None, use_gpu, wait_s=cluster.wait_s, say=screen.line)
        yield
    finally:
        connect.shutdown(ray)


def ask_models(
    options: EvaluateConfig, configs: Sequence[TaskConfig], models: Sequence[Model], screen: Console
) -> list[Evaluated]:
    """Every model is asked every task by every pattern; of several tasks a fine-tuned one is asked those that it was
    taught. What is wrong with a task is said before any model answers.
    """
    known: dict[str, AskedTask] = {}
    asked = [[_asked(options, config, model, known) for config in taught_to(model, configs)] for model in models]
    cells = [[(one, number) for one in row for number in pattern_numbers(one.task, options.patterns)] for row in asked]
    return [one for model, row in zip(models, cells, strict=True) for one in _answered(options, model, row, screen)]


def _answered(
    options: EvaluateConfig, model: Model, cells: Sequence[tuple[AskedTask, int]], screen: Console
) -> list[Evaluated]:
    """The answers of a model to tasks by patterns."""
    tokenizer, positions = model.load_tokenizer(), model.positions()

    def answer(workers: Workers, one: AskedTask, number: int) -> Evaluated:
        less = " without context" if one.left_out else ""
        with screen.progress(f"{model.name} {one.task.name} p{number}{less}", one.size) as live:
            return evaluate(
                model,
                positions,
                tokenizer,
                one,
                number,
                workers,
                to=options.to,
                on_progress=lambda done, total: live.update(done, total=total),
            )

    found = []
    with contextlib.closing(Workers(model, tokenizer, options.num_workers, use_gpu=options.use_gpu)) as workers:
        for one, number in cells:
            whole = answer(workers, one, number)
            less = without_context(one, number) if options.without_context else None
            found.append(replace(whole, without_context=answer(workers, less, number)) if less else whole)
    return found


def _asked(options: EvaluateConfig, config: TaskConfig, model: Model, known: dict[str, AskedTask]) -> AskedTask:
    """The items of a task, read once for all models that are asked it alike."""
    taught = {name: model.asked.get(name) for name in ("task", "version", "labels", "words", "pattern", "settings")}
    key = json.dumps([asdict(config), taught], sort_keys=True)
    if key not in known:
        known[key] = ask_task(config, model, split=options.split, limit=options.limit)
    return known[key]
