"""Evaluate models on tasks, zero-shot or fine-tuned: every answer is kept, and scores follow from the answers.

python workflows/evaluate.py --models runs/a runs/b@step=2000 'runs/c@*' --tasks rte cb copa --data=<folder>
python workflows/evaluate.py --models 'runs/sst2-seed*' --split=test    # fine-tuned: the task that they were taught
python workflows/evaluate.py --models runs/a --task.name=blimp --task.data=blimp.jsonl --num_workers=2
python workflows/evaluate.py --models runs/a --config reviews.yaml --split=test     # your own files, by a recipe
python workflows/evaluate.py --compare base tuned                                   # are they told apart?

The same command continues an evaluation where it stopped, and shows one that is finished.
"""

try:
    from infra.errors import quiet_until_main, run_script

    quiet_until_main(__name__)
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `source .venv/bin/activate` first, and `make install` before if it fails") from None

from infra import config
from infra.console import Console
from workflows.evaluation.config import EvaluateConfig

_COMMON = ("models", "tasks", "data", "task.name", "task.data", "split", "patterns", "num_workers", "use_gpu", "to")


def main() -> None:
    options = config.parse(EvaluateConfig, description="Evaluate models on tasks, item by item.", common=_COMMON).config
    if options.compare:
        _compare(options)
    else:
        _evaluate(options)


def _evaluate(options: EvaluateConfig) -> None:
    # torch and pyarrow take 2 s of CPU time to load: here, when the settings are read.
    from infra import storage
    from workflows.evaluation import page, tracking
    from workflows.evaluation.ask_models import ask_models, ray_if_needed
    from workflows.evaluation.contamination import contamination_of, contamination_rows, unknown_lines
    from workflows.evaluation.models import find_models
    from workflows.evaluation.places import resolve_places
    from workflows.evaluation.results import as_json, averages, counts_line, counts_of, results_of, table_rows
    from workflows.evaluation.seeds import seed_results, seed_rows
    from workflows.evaluation.submissions import write_submissions
    from workflows.evaluation.tasks import task_configs

    screen = Console(options.console)
    options = resolve_places(options)
    models = find_models(options.models)
    configs = task_configs(options, models)
    storage.ensure_writable(options.to)
    with ray_if_needed(options.num_workers, options.cluster, screen, use_gpu=options.use_gpu):
        evaluated = ask_models(options, configs, models, screen)
    scored = [(one, results_of(one)) for one in evaluated]
    results, over_seeds = [result for _, several in scored for result in several], seed_results(scored)
    seen = contamination_of(evaluated, options.to, screen, looks=options.contamination)
    counts = [counts_of(one) for one in evaluated]
    screen.table("scores", *table_rows(results))
    for model, value in averages(results).items():
        screen.line(f"SuperGLUE average of {model}: {value:.1f}")
    if over_seeds:
        screen.table("models that differ in their seed alone", *seed_rows(over_seeds))
    columns, rows = contamination_rows(seen)
    if rows:
        screen.table("what of the items is in the text that the model was trained on", columns, rows)
    for line in unknown_lines(seen):
        screen.line(line)
    for one in counts:
        screen.line(counts_line(one))
    for line in write_submissions(evaluated, options.to):
        screen.line(line)
    storage.write_json(storage.join(options.to, "scores.json"), as_json(results, over_seeds, seen, counts))
    html = storage.join(options.to, "evaluation.html")
    storage.write_bytes(html, page.render(evaluated, results, over_seeds, seen).encode())
    screen.next_steps([("look", html), *tracking.record(options, evaluated, results, over_seeds, seen)])


def _compare(options: EvaluateConfig) -> None:
    from infra import storage
    from workflows.evaluation import comparison

    screen, sides = Console(options.console), options.compare
    verdicts = comparison.compare(sides, options.to, metrics=options.task.metrics)
    screen.table(f"{sides[1]} beside {sides[0]}", *comparison.verdict_rows(verdicts, sides))
    for one in verdicts:
        screen.line(f"{one.task} {one.split} p{one.pattern} {one.metric}: {one.told}")
    storage.write_json(storage.join(options.to, "comparison.json"), comparison.as_json(verdicts, sides))


if __name__ == "__main__":
    run_script(main)
