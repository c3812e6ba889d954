"""Look up the past of a run: the batch of a step, rebuilt and checked, or the steps that saw a document.

python workflows/inspect_run.py --run <folder, or id in MLflow> --step=1200 --html=step.html
python workflows/inspect_run.py --run 'runs/quickstart-*' --document=<id>
"""

try:
    from infra.errors import quiet_until_main, run_script

    quiet_until_main(__name__)
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `source .venv/bin/activate` first, and `make install` before if it fails") from None

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra import config, storage
from infra.console import Console
from infra.errors import DataError, UserError

if TYPE_CHECKING:
    from workflows.runs.history import Past


@dataclass
class InspectRunConfig:
    """What to look up of a run."""

    run: str
    """The run: its folder (of several, `runs/a-*`, the newest) or URL, its name in ./runs, or its id in MLflow."""
    step: int | None = None
    """Rebuild the batch of this optimizer step, counted from 1 as it is logged."""
    document: str | None = None
    """List the steps that saw this document: its id, 32 hexadecimal digits."""
    count: int = 3
    """Segments of the step to show with their blanks."""
    documents: int = 30
    """Documents of the step to list; 0: all."""
    store: str | None = None
    """Where the run's token store lies now, if it was moved alone."""
    html: str | None = None
    """Write those segments to this file instead of the screen."""


def main() -> None:
    options = config.parse(InspectRunConfig, description="Rebuild what a run was shown at a step.").config
    if (options.step is None) == (options.document is None):
        raise UserError("--step and --document: exactly one is needed", try_="--step K, or --document ID")
    # numpy and pyarrow take half a second of CPU time to load: here, when the options are known to be good.
    from workflows.runs.history import open_past

    screen = Console()
    past = open_past(options.run, store=options.store)
    if options.step is not None:
        _show_step(past, options.step, options, screen)
    else:
        _show_document(past, str(options.document), screen)


def _show_step(past: "Past", step: int, options: InspectRunConfig, screen: Console) -> None:
    from pipelines.views import render
    from workflows.runs.history import batch_of, documents_of, origins, verdict

    setup, batch = past.setup, batch_of(past, step)
    segments = Counter(setup.feed.mixture.names[index] for index in batch.blanks.objective.tolist())
    screen.header(
        f"{past.name} · step {step:,} of {setup.budget.steps:,}",
        [
            ("rows", f"{past.plan.step_rows} in {past.plan.micro_batches} micro-batches"),
            ("tokens", f"{len(batch.rows.tokens):,} in {len(batch.rows.ids):,} segments"),
            ("objectives", ", ".join(f"{name} {segments[name]:,}" for name in setup.feed.mixture.names)),
            ("fingerprint", f"{batch.fingerprint:016x}, {verdict(past, step, batch)}"),
        ],
    )
    documents = documents_of(origins(past, batch))
    listed = documents[: options.documents or len(documents)]
    screen.table("documents", ["document", "source", "file", "byte", "segments"], listed)
    if len(listed) < len(documents):
        screen.line(f"and {len(documents) - len(listed):,} more: --documents=0 lists all")
    shown = range(min(options.count, len(batch.rows.ids)))
    examples = render.view_segments(batch.rows, batch.blanks, shown, setup.feed, setup.tokenizer)
    if options.html:
        storage.write_bytes(options.html, render.html(examples, title=f"{past.name}, step {step:,}").encode())
        screen.line(f"wrote {options.html}")
        return
    for example in examples:
        screen.rich.print(render.terminal(example), soft_wrap=True)


def _show_document(past: "Past", document: str, screen: Console) -> None:
    from workflows.runs.history import last_step, read_log, sightings

    reached = last_step(read_log(past.url))
    seen = [
        (one.epoch, one.step, one.micro_batch, ", ".join(str(segment + 1) for segment in one.segments),
         "" if one.step <= reached else "to come")
        for one in sightings(past, document)
    ]  # fmt: skip
    if not seen:
        searched = f"{past.setup.budget.steps:,} steps of the store {past.setup.store.url}"
        raise DataError(
            f"the run saw no part of {document} in {searched}",
            try_="look for it in the store's ledger.parquet (dropped) and documents/ (held out, or not reached)",
        )
    screen.table(f"steps that saw {document}", ["epoch", "step", "micro-batch", "segments", ""], seen)


if __name__ == "__main__":
    run_script(main)
