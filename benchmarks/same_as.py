"""Whether this tree does what an earlier revision did, to the bit: stores, training steps, weights, answers.

    python benchmarks/same_as.py c1f8ea3 [--renamed train.old=train.new ...] [--json FILE]

Both prepare the same texts (made here) with three readers, train tiny models on them in fp32, on one and on two
workers, and fill and score blanks with the model that the earlier revision trained. Compared are the stores' names,
digests and files; the identity of a run's settings; of each step the fingerprint of its batch and the losses; weights;
tokens and scores. Then this tree continues a run that the earlier revision began, on its store: from its checkpoint to
the same weights, without writing a file below its data.root.

Each side is a process of its own with its own modules, used only through the command lines of `workflows/prepare.py`
and `workflows/pretrain.py` and the names that `glm_model` hands on. --renamed: a setting or a section that this tree
calls otherwise. Exit code 0: all equal; 1: something differs, or could not be run. Takes some minutes on two cores.
"""

import argparse
import contextlib
import json
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _revision
import _texts
from _figures import Figures, digest, file_times, run_figures, store_figures

_DOCUMENTS = 400  # of each reader
_STEPS = 30
_STOP_AFTER = 10  # steps
_PATIENCE_S = 600.0  # for one command
_MISSING, _FAILED = "missing", "failed"
_ANSWERS = Path(__file__).with_name("_answers.py")
_COMMON: dict[str, Any] = {
    "data.tokenizer.train.vocab_size": 1024,
    "data.sequence_length": 64,
    "data.row_width": 512,
    "data.rows_per_group": 8,
    "data.validation_fraction": 0.05,
    "data.validation_tokens": 1000,
    "model.size": "tiny",
    "optim.lr": 0.002,
    "train.precision": "fp32",
    "train.steps": _STEPS,
    "train.batch_tokens": 3000,
    "train.micro_rows": 2,
    "train.log_every": 1,
    "train.eval_every": 15,
    "train.checkpoint_every": 15,
    "tracking.enabled": "false",
}


@dataclass(frozen=True)
class Case:
    """A store, and a training on it."""

    name: str
    source: str
    """As YAML; TEXTS is the folder of the texts."""
    workers: int
    """0: the store is prepared, and nothing trained."""
    settings: dict[str, Any]


_CASES = (
    Case("text", "{reader: text, url: TEXTS/text}", 1, {"data.select.duplicates": "near"}),
    Case("jsonl", "{reader: jsonl, url: TEXTS/texts.jsonl}", 2, {"model.block_positions": "false"}),
    Case(
        "csv",
        "{reader: csv, url: TEXTS/texts.csv}",
        0,
        {"blanks.mixture": "{masked_lm: 1.0}", "data.tokenizer.train.algorithm": "bpe", "data.clean.preset": "strict"},
    ),
)


@dataclass(frozen=True)
class Side:
    """A tree and the folders of what it makes."""

    name: str
    tree: Path
    out: Path
    texts: Path
    renamed: dict[str, str]
    """Settings that are not called as in `_COMMON` and `_CASES`."""

    def root(self, case: Case) -> Path:
        return self.out / f"data-{case.name}"

    def run(self, case: Case) -> Path:
        return self.out / "runs" / case.name

    def settings(self, case: Case) -> dict[str, Any]:
        places = {
            "data.sources": f"[{case.source.replace('TEXTS', str(self.texts))}]",
            "data.root": self.root(case),
            "run.storage_path": self.out / "runs",
            "run.name": case.name,
        }
        workers = {"train.num_workers": case.workers} if case.workers else {}
        return _COMMON | case.settings | workers | places


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # folders are removed then too
    began_at = time.monotonic()
    with (
        _revision.checkout(options.revision) as tree,
        tempfile.TemporaryDirectory(prefix="glm-same-", ignore_cleanup_errors=True) as folder,
    ):
        texts = Path(folder, "texts")
        _texts.write(texts, _DOCUMENTS)
        earlier = Side(options.revision, tree, Path(folder, "earlier"), texts, {})
        now = Side("working tree", _revision.ROOT, Path(folder, "now"), texts, options.renamed)
        rows = _compare_sides(earlier, now)
    print(f"{time.monotonic() - began_at:.0f} s\n")
    different = show(rows, earlier.name)
    if options.json:
        report = {"name": "same_as", "machine": platform.processor() or platform.machine()}
        values = {"different": different, "compared": len(rows)}
        Path(options.json).write_text(json.dumps(report | {"values": values, "ratios": {}}, indent=2))
    sys.exit(1 if different else 0)


# -- comparing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    what: str
    earlier: str
    now: str

    @property
    def equal(self) -> bool:
        return self.earlier == self.now and not self.now.startswith(_FAILED)


def compare(earlier: Figures, now: Figures) -> list[Row]:
    """A row for each name that either has, in order; what one of them lacks is different."""
    names = dict.fromkeys([*earlier, *now])
    return [Row(name, earlier.get(name, _MISSING), now.get(name, _MISSING)) for name in names]


def show(rows: list[Row], revision: str) -> int:
    """Print the table; returns how many rows are different."""
    width = max(len(row.what) for row in rows)
    print(f"{'':9}  {'':{width}}  {revision[:12]:12}  working tree")
    for row in rows:
        now = row.now if row.now.startswith(_FAILED) else row.now[:12]
        print(f"{'equal' if row.equal else 'different':9}  {row.what:{width}}  {row.earlier[:12]:12}  {now}")
    different = [row.what for row in rows if not row.equal]
    print(f"equal: {len(rows) - len(different)} of {len(rows)} compared")
    if different:
        print(f"different: {', '.join(different)}")
    return len(different)


def _compare_sides(earlier: Side, now: Side) -> list[Row]:
    for side in (earlier, now):
        _revision.check_modules(side.tree)
    rows: list[Row] = []
    for case in _CASES:
        rows += compare(_make(earlier, case), _make(now, case))
    model = earlier.run(_CASES[0]) / "model"
    rows += compare(_answers(earlier, model), _answers(now, model))
    (case,) = (case for case in _CASES if case.workers == 2)
    return rows + _continue(earlier, now, case)


def _continue(earlier: Side, now: Side, case: Case) -> list[Row]:
    """A run that the earlier revision began, finished by this tree, beside the one that it finished itself."""
    settings = earlier.settings(case) | {"run.name": "stopped"}
    folder = earlier.run(case).with_name("stopped")
    _begin(earlier, settings, folder)
    log, before = (folder / "metrics.jsonl").read_bytes(), file_times(earlier.root(case))
    code, output = _script(now, "pretrain", settings, "continue its run")
    figures = {"weights": f"{_FAILED}: {_error(output)}"} if code else run_figures(folder, _STEPS)
    rows = compare(run_figures(earlier.run(case), _STEPS), figures)
    begun = (folder / "metrics.jsonl").read_bytes()[: len(log)]  # with times: steps that are taken again have others
    rows.append(Row("steps before the stop kept", digest([log]), digest([begun])))
    rows.append(Row("store left alone", before, file_times(earlier.root(case))))
    return [Row(f"continued: {row.what}", row.earlier, row.now) for row in rows]


# -- processes ---------------------------------------------------------------------------------------------------------


def _make(side: Side, case: Case) -> Figures:
    """Prepare a case's store, and train on it; ends the program where that fails."""
    script = "pretrain" if case.workers else "prepare"
    what = f"prepare {case.name}" + (f" and train, workers: {case.workers}" if case.workers else "")
    code, output = _script(side, script, side.settings(case), what)
    if code:
        sys.exit(f"error: workflows/{script}.py of {side.name} ended with exit code {code}\n{output[-4000:]}")
    figures = store_figures(side.root(case)) | (run_figures(side.run(case), _STEPS) if case.workers else {})
    return {f"{case.name}: {name}": value for name, value in figures.items()}


def _script(side: Side, script: str, settings: dict[str, Any], what: str) -> tuple[int, str]:
    """(exit code, output) of a script of a side."""
    began_at = time.monotonic()
    print(f"{side.name}: {what}", end=" ", flush=True)
    with _started(side, _command(side, script, settings)) as (process, output):
        code = _end(process)
    print(f"{time.monotonic() - began_at:.0f} s", flush=True)
    return code, output.read_text(errors="replace")


def _begin(side: Side, settings: dict[str, Any], folder: Path) -> None:
    """A run that gets SIGTERM in its middle: it writes a checkpoint and ends with exit code 130."""
    print(f"{side.name}: begin a run and stop it", end=" ", flush=True)
    log, until = folder / "metrics.jsonl", time.monotonic() + _PATIENCE_S
    with _started(side, _command(side, "pretrain", settings)) as (process, output):
        while process.poll() is None and time.monotonic() < until:
            if log.exists() and f'"step": {_STOP_AFTER},' in log.read_text():
                break
            time.sleep(0.02)
        process.terminate()
        code = _end(process)
    text = output.read_text(errors="replace")
    if code != 130:
        sys.exit(f"error: expected a stopped run with exit code 130, got {code}\n{text[-4000:]}")
    print(f"({_error(text)})", flush=True)


def _answers(side: Side, model: Path) -> Figures:
    """What a side answers with a model."""
    with _started(side, [sys.executable, str(_ANSWERS), str(model)]) as (process, output):
        code = _end(process)
    text = output.read_text(errors="replace")
    if code:
        return {"answers": f"{_FAILED}: {_error(text)}"}
    return {f"answers: {name}": digest(values) for name, values in json.loads(text.splitlines()[-1]).items()}


@contextlib.contextmanager
def _started(side: Side, command: list[str]) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A process of a side and the file that it writes to."""
    side.out.mkdir(parents=True, exist_ok=True)
    output = side.out / "output.txt"  # and not a pipe, which processes of Ray would hold open
    with open(output, "wb") as file, _revision.started(side.tree, command, file) as process:
        yield process, output


def _end(process: subprocess.Popen) -> int:
    try:
        return process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired as error:
        sys.exit(f"error: {error}")


def _command(side: Side, script: str, settings: dict[str, Any]) -> list[str]:
    flags = [f"--{rename(key, side.renamed)}={value}" for key, value in settings.items()]
    return [sys.executable, f"workflows/{script}.py", *flags]


def rename(key: str, names: dict[str, str]) -> str:
    """The setting as a side calls it: itself or a section that it is in may have another name there."""
    for old, new in names.items():
        if key == old or key.startswith(f"{old}."):
            return new + key[len(old) :]
    return key


def _error(text: str) -> str:
    """What a script says of why it ended: its last line with an error, else its last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["no output"]
    return next((line for line in reversed(lines) if "error:" in line.lower()), lines[-1]).removeprefix("error: ")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="any revision of this repository, as git names it")
    parser.add_argument(
        "--renamed", nargs="+", default=[], metavar="OLD=NEW", help="as the revision and as this tree call it"
    )
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    if wrong := [pair for pair in options.renamed if pair.count("=") != 1]:
        parser.error(f"--renamed {wrong[0]}: expected OLD=NEW")
    options.renamed = dict(pair.split("=") for pair in options.renamed)
    return options


if __name__ == "__main__":
    main()
