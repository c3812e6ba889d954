"""Contamination beside the score: copies of items in the text that a model was trained on are found however their lines
are broken, what is asked apart from public context; where the text is gone nothing is claimed.
"""

import json
import shutil
import sys
import textwrap
from pathlib import Path

import pytest
from helpers import asked
from helpers.runners import one_by_one
from helpers.selections import prose

from infra.errors import run_main
from pipelines.blanks.mixture import BlanksConfig
from pipelines.config import DataConfig, TokenizerConfig
from pipelines.corpus.sources import Source
from pipelines.prepare import preparation_of, prepare
from pipelines.selection.config import EvaluationSet, SelectConfig
from pipelines.store.format import TokenStore
from workflows import evaluate
from workflows.runs.record import RunRecord, write_record

WIDTHS = (20, 33, 60, 80, 1000)
COPIED = 10  # of 20 items the hypothesis; of the five behind them the premise


def sentence(number: int) -> str:
    return prose(1000 + number, 20)


@pytest.fixture
def task(tmp_path) -> str:
    """Twenty items of RTE, with premises and hypotheses of their own."""
    rows = [
        {
            "idx": n,
            "premise": sentence(n),
            "hypothesis": sentence(100 + n),
            "label": ("entailment", "not_entailment")[n % 2],
        }
        for n in range(20)
    ]
    return asked.write(tmp_path / "RTE" / "val.jsonl", rows)


def copies() -> list[str]:
    """The same sentences in lines of several widths, in other cases, with marks of quotation."""
    written = []
    for n in range(COPIED + 5):
        text = sentence(100 + n) if n < COPIED else sentence(n)
        wrapped = "\n> ".join(textwrap.wrap(f"\u201c{text.capitalize()}\u201d", WIDTHS[n % len(WIDTHS)]))
        written.append(f"{prose(n)}\n\n> {wrapped}\n\n{prose(50 + n)}")
    return written


@pytest.fixture
def make(tmp_path, tiny_tokenizer):
    """A run whose store was made of these documents; returns it and its model folder."""
    tiny_tokenizer.save(str(tmp_path / "tokenizer"))

    def make(texts: list[str], **select) -> tuple[TokenStore, str]:
        (tmp_path / "corpus").mkdir()
        lines = [json.dumps({"text": text}) for text in [*texts, *(prose(200 + n) for n in range(20))]]
        (tmp_path / "corpus" / "a.jsonl").write_text("\n".join(lines) + "\n")
        config = DataConfig(
            sources=[Source("jsonl", str(tmp_path / "corpus"))],
            root=str(tmp_path / "data"),
            tokenizer=TokenizerConfig(url=str(tmp_path / "tokenizer")),
            sequence_length=32,
            row_width=160,
            max_unknown=1.0,
            select=SelectConfig(**select),
        )
        store = prepare(preparation_of(config, BlanksConfig()), one_by_one())
        model = asked.model_folder(tmp_path / "runs" / "a" / "model", tiny_tokenizer)
        write_record(RunRecord("a", "0" * 64, {}, store_url=store.url), str(tmp_path / "runs" / "a"))
        return store, model

    return make


@pytest.fixture
def seen(monkeypatch, tmp_path, task):
    """Evaluate a model: what scores.json says of contamination."""

    def seen(model: str, *more: str) -> dict:
        places = [f"--task.data={task}", f"--to={tmp_path}/out", "--tracking.enabled=false", "--console.quiet=true"]
        words = ["--task.name=rte", *more]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", "--models", model, *words, *places])
        with pytest.raises(SystemExit) as stopped:
            run_main(evaluate.main)
        assert not stopped.value.code
        (one,) = json.loads(Path(tmp_path, "out/scores.json").read_text())["contamination"]
        return one

    return seen


def test_copies_are_found_in_lines_of_any_width(make, seen, tmp_path):
    _, model = make(copies())
    one = seen(model)
    assert (one["asked"], one["context"], one["n"], one["too_short"], one["unknown"]) == (50.0, 25.0, 20, 0, "")
    ((metric, _, n),) = one["without"]
    assert (metric, n) == ("accuracy", 10)
    page = (tmp_path / "out/evaluation.html").read_text()
    assert '<td class="n">50.0 %</td><td class="n">25.0 %</td>' in page


def test_documents_that_were_left_out_do_not_count(make, seen, task):
    store, model = make(copies(), decontaminate=[EvaluationSet("task:rte", task)])
    assert store.manifest.contamination[0].documents == COPIED
    one = seen(model)
    assert (one["asked"], one["context"], one["without"]) == (0.0, 25.0, [])


def test_nothing_is_claimed_where_the_text_is_gone_or_nobody_tells_of_it(make, seen, tmp_path):
    store, model = make(copies())
    shutil.rmtree(tmp_path / "data" / "text")
    one = seen(model)
    assert (one["asked"], one["unknown"]) == (None, f"the cleaned text of its store {store.url} is gone")
    shutil.rmtree(store.url)
    assert seen(model)["unknown"] == f"its store {store.url} is gone"
    shutil.copytree(model, tmp_path / "copied")
    assert seen(str(tmp_path / "copied"))["unknown"] == "no run tells which text it was trained on"


def test_a_fine_tuned_model_has_seen_what_the_model_before_it_was_trained_on(make, seen, tmp_path):
    _, model = make(copies())
    shutil.copytree(model, tmp_path / "tuned" / "model")
    task = {"task": "rte", "version": 1, "labels": ["entailment", "not_entailment"], "started_from": model}
    (tmp_path / "tuned" / "model" / "task.json").write_text(json.dumps(task))
    assert seen(str(tmp_path / "tuned"))["asked"] == 50.0
