"""inspect_data.py on the tiny store: screen, page, Parquet, and what it refuses."""

import sys

import pyarrow.parquet as pq
import pytest

from infra.errors import run_main
from workflows import inspect_data

pytestmark = pytest.mark.integration


@pytest.fixture
def run(monkeypatch, capsys, tiny_store):
    def run(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["inspect_data.py", f"--data.store={tiny_store.url}", *argv])
        with pytest.raises(SystemExit) as stopped:
            run_main(inspect_data.main)
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return run


def test_the_screen_shows_every_objective_and_theory(run):
    code, out, _ = run("--inspect.count=3")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if "predicted positions" in line] == [
        "token",
        "sentence",
        "document",
    ]
    assert "token: length of a blank, in tokens" in out
    assert "| theory" in out


def test_epochs_differ(run):
    assert run("--inspect.epoch=0")[1] != run("--inspect.epoch=1")[1]


def test_the_page_stands_alone(run, tmp_path):
    code, out, _ = run(f"--inspect.html={tmp_path}/page.html", "--inspect.objective=document")
    assert (code, out.strip()) == (0, f"wrote {tmp_path}/page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("<h2>1. document") == 1
    assert ". token</h2>" not in page
    assert 'class="chart"' in page
    assert "http" not in page.replace("http-equiv", "")


def test_laid_out_rows(run, tmp_path, tiny_store):
    code, out, _ = run(f"--inspect.export={tmp_path}/rows.parquet", "--inspect.export_rows=2")
    assert (code, out.strip()) == (0, f"wrote 2 rows to {tmp_path}/rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 2


def test_mistakes(run):
    code, _, error = run("--inspect.objective=tokn")
    assert code == 2
    assert "did you mean 'token'" in error
    code, _, error = run("--data.store=/nowhere")
    assert code == 3
    assert "not a finished token store" in error


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["--run=runs/a", "--step=3"], "--run <run> --step K, or --document ID"),
        (["--run", "runs/a"], "--run <run> --step K, or --document ID"),
        (["--step=3"], "--run <run> --step K"),
        (["--document=0"], "--run <run> --document ID"),
    ],
)
def test_what_a_run_was_shown_is_refused_with_the_command_that_shows_it(run, words, command):
    code, _, error = run(*words)
    assert (code, f"python workflows/inspect_run.py {command}\n" in error) == (2, True), error


def test_the_name_of_a_run_is_a_setting_of_its_recipe(run):
    assert run("--run.name=a")[0] == 0
