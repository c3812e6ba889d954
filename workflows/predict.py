"""Answer every row of a table by a model: Parquet in the order of the input, with its columns and ours.

python workflows/predict.py --model runs/reviews --input new.csv --to labels                  # as it was fine-tuned
python workflows/predict.py --model runs/reviews --input 's3://texts/2024/*.parquet' --to s3://out --num_workers 4
python workflows/predict.py --model runs/base --kind=fill --input texts.jsonl --to filled     # [MASK] in the text
python workflows/predict.py --model runs/base --kind=embed --input texts.jsonl --to vectors --text=body
python workflows/predict.py --model runs/base --kind=choose --candidates options --pattern='{question~} {mask}' \
    --input questions.jsonl --to choices
python workflows/predict.py --model runs/base --kind=score --input texts.jsonl --to scores

The same command continues a prediction where it stopped, and shows one that is finished.
"""

try:
    from infra.errors import quiet_until_main, run_script

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

_COMMON = ("model", "input", "to", "kind", "text", "pattern", "candidates", "target", "words", "num_workers", "use_gpu")


def main() -> None:
    options = config.parse(PredictConfig, description="Answer the rows of a table.", common=_COMMON).config
    # torch and pyarrow take 2 s of CPU time to load: here, when the settings are read.
    from infra import storage
    from workflows.evaluation.ask_models import ray_if_needed
    from workflows.evaluation.models import find_models
    from workflows.evaluation.places import check_reachable
    from workflows.evaluation.workers import Workers
    from workflows.prediction.blocks import Answering
    from workflows.prediction.kinds import check_masks, find_kind
    from workflows.prediction.plan import batch_positions, check_given, plan_prediction
    from workflows.prediction.prediction import MANIFEST, check_answers, check_place, is_finished, predict

    screen = Console(options.console)
    check_reachable({"model": options.model, "input": options.input, "to": options.to})
    if options.to and options.input:
        options = replace(options, to=storage.absolute(options.to), input=storage.absolute(options.input))
    check_given(options)
    model, *others = find_models([options.model])
    if others:
        raise UserError(f"--model {options.model} names several models", try_="choose one: @step=2000")
    kind, tokenizer = find_kind(options, model), model.load_tokenizer()
    check_masks(kind, model, tokenizer)
    plan = plan_prediction(options, model, kind, screen)
    have = check_place(options.to, plan)
    for why in plan.lost.values():
        screen.warn(why)
    if not is_finished(options.to, plan, have):
        storage.ensure_writable(options.to)
        answering = Answering(kind, options.overlong, batch_positions(options))
        with (
            ray_if_needed(options.num_workers, options.cluster, screen, use_gpu=options.use_gpu),
            contextlib.closing(
                Workers(model, tokenizer, options.num_workers, use_gpu=options.use_gpu, answering=answering)
            ) as workers,
        ):
            predict(options, plan, workers, screen)
    done = storage.read_json(storage.join(options.to, MANIFEST))
    ours = ", ".join(plan.names[name] for name in kind.columns)
    notes = f"{done['without_answer']:,} without an answer (column {plan.names['reason']}), {done['cut']:,} cut"
    screen.line(f"{counted(done['rows'], 'row')} in {options.to} with {ours}; {notes}")
    code = f"import pandas; print(pandas.read_parquet({json.dumps(options.to)}))"
    screen.next_steps([("look", f"python -c {shlex.quote(code)}")])
    check_answers(options.to, options)


if __name__ == "__main__":
    run_script(main)
