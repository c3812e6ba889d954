"""Printed commands: a shell reads them as they were meant, from the folder in which they are printed."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from infra import commands

ROOT = Path(__file__).resolve().parents[2]
ODD = ["it's 50% #1 [v2]?*", "$HOME", "a b", 'say "x"', "~", "", "--text=a;b", "größe\n"]


def test_a_shell_gives_back_every_argument():
    command = commands.command(sys.executable, "-c", "import sys; print(sys.argv[1:])", *ODD)
    assert subprocess.run(command, shell=True, capture_output=True, text=True, check=True).stdout == f"{ODD}\n"


def test_a_script_is_named_as_it_is_found_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert shlex.split(commands.workflow("generate", "--model", "runs/a b"))[1:] == [
        "workflows/generate.py",
        "--model",
        "runs/a b",
    ]
    for folder in (tmp_path, ROOT / "docs"):
        monkeypatch.chdir(folder)
        python, script = shlex.split(commands.workflow("generate"))
        assert script == str(ROOT / "workflows" / "generate.py")
        assert subprocess.run([python, "-c", "pass"], check=False).returncode == 0


def test_a_program_is_named_by_its_path_where_its_environment_is_not_active(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    for name in ("python", "tool"):
        (tmp_path / "bin" / name).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    assert commands.program("tool") == "bin/tool"
    assert commands.program("no-such-tool") == "no-such-tool"
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert commands.program("tool") == "tool"


@pytest.mark.parametrize("fresh", [["--run.fresh"], ["--run.fresh=true"], ["--run.fresh", "true"]])
def test_the_command_that_goes_on_does_not_begin_once_more(fresh):
    words = shlex.split(commands.again(["pretrain.py", *fresh, "--train.tokens", "2k", "--plan"]))
    assert words[1:] == ["pretrain.py", "--train.tokens", "2k", "--plan"]
    assert commands.same_command(is_fresh=True) == "the same command without --run.fresh"
    assert commands.same_command(is_fresh=False) == "the same command"
