"""What tests of mistakes share."""

import sys

import pytest
from helpers.mistakes import write_texts
from helpers.scripts import called

from infra.errors import run_main


@pytest.fixture
def run(monkeypatch, capsys):
    """run(main, *argv): exit code, and what is on standard error."""

    def run(main, *argv: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["script", *argv])
        with pytest.raises(SystemExit) as stopped:
            run_main(main)
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, capsys.readouterr().err

    return run


@pytest.fixture
def call(monkeypatch, capsys):
    """call(module, *argv) of a script: exit code, and all that it printed, with single blanks."""

    def call(module, *argv: str) -> tuple[int, str]:
        code, printed = called(monkeypatch, capsys, module, *argv)
        return code, " ".join(printed.split())

    return call


@pytest.fixture
def texts(tmp_path):
    """A folder of 200 short documents."""
    return write_texts(tmp_path / "texts")
