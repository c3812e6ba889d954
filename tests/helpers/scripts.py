"""A script of workflows/, called in this process as a user calls it."""

import sys
from types import ModuleType

import pytest

from infra.errors import run_main


def called(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: ModuleType, *words: str):
    """(exit code, all that it printed)."""
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *words])
    with pytest.raises(SystemExit) as stopped:
        run_main(module.main)
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out + captured.err
