"""Label every row of a table by a fine-tuned model: Parquet in the order of the input, with its columns and ours.

python workflows/predict.py --model runs/reviews --input new.csv --to predictions
python workflows/predict.py --model runs/reviews --input 's3://texts/2024/*.parquet' --to s3://out --num_workers 4

The same command continues a prediction where it stopped, and shows one that is finished.
"""

try:
    from infra.errors import quiet_until_main, run_main

    quiet_until_main(__name__)
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `source .venv/bin/activate` first, and `make install` before if it fails") from None

import contextlib
import json
import shlex
from dataclasses import replace

from infra import config
from infra.console import Console, counted
from infra.errors import UserError
from workflows.prediction.config import PredictConfig

_COMMON = ("model", "input", "to", "num_workers", "use_gpu")


def main() -> None:
    options = config.parse(PredictConfig, description="Label the rows of a table.", common=_COMMON).config
    # torch and pyarrow take 2 s of CPU time to load: here, when the settings are read.
    from infra import storage
    from workflows.evaluation.campaign import ray_if_needed
    from workflows.evaluation.models import find_models
    from workflows.evaluation.places import check_reachable
    from workflows.evaluation.tasks import taught_task
    from workflows.evaluation.workers import Workers
    from workflows.prediction.prediction import MANIFEST, check_place, plan_prediction, predict

    screen = Console(options.console)
    places = {"model": options.model, "input": options.input, "to": options.to}
    if missing := [name for name, value in places.items() if not value]:
        raise UserError(f"--{missing[0]} is missing", try_="--model runs/<run> --input new.csv --to predictions")
    check_reachable(places)
    options = replace(options, to=storage.absolute(options.to), input=storage.absolute(options.input))
    if f"{options.to}/".startswith(f"{options.input.rstrip('/')}/"):
        raise UserError(
            f"--to {options.to} lies in the input", why="predictions would be read as rows", try_="give another --to"
        )
    model, *others = find_models([options.model])
    if others:
        raise UserError(f"--model {options.model} names several models", try_="choose one: @step=2000")
    task = taught_task(model)
    if not task.labels or task.kind != "choose" or task.unpack:
        raise UserError(
            f"{task.name} does not give each row one of its labels",
            why="its items have candidates of their own, or a row holds several",
            try_="use evaluate.py, which keeps the answer to each item",
        )
    plan = plan_prediction(options, model, task, screen)
    manifest = storage.join(options.to, MANIFEST)
    check_place(options.to, plan)
    if not storage.exists(manifest):
        storage.ensure_writable(options.to)
        with (
            ray_if_needed(options.num_workers, options.cluster, screen, use_gpu=options.use_gpu),
            contextlib.closing(
                Workers(model, model.load_tokenizer(), options.num_workers, use_gpu=options.use_gpu)
            ) as workers,
        ):
            predict(options, model, task, plan, workers, screen)
    done = storage.read_json(manifest)
    notes = f"{done['without_label']:,} without a label (column {plan.names['reason']}), {done['cut']:,} cut"
    screen.line(f"{counted(done['rows'], 'row')} in {options.to}, the label as {plan.names['label']}; {notes}")
    code = f"import pandas; print(pandas.read_parquet({json.dumps(options.to)}))"
    screen.next_steps([("look", f"python -c {shlex.quote(code)}")])


if __name__ == "__main__":
    run_main(main)
