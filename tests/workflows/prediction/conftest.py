"""The command in a folder of its own; each file says by its fixture `model` which one answers."""

import sys

import pytest

from infra.errors import run_main
from workflows import predict


@pytest.fixture
def run(monkeypatch, capsys, tmp_path, model):
    """Run the command: (exit code, what it printed, its errors)."""

    def run(*argv: str, model: str = model) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["predict.py", f"--model={model}", "--to=out", *argv])
        with pytest.raises(SystemExit) as stopped:
            run_main(predict.main)
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return run
