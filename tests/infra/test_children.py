"""Scripts as child processes: they run as `python SCRIPT` runs them, and none outlives the process that started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra import children

ROOT = Path(__file__).resolve().parents[2]

_ECHO = """
import sys
from beside import word
print(__name__, sys.argv[1:], word)
raise SystemExit(3)
"""
_PARENT = """
import os, signal, sys
from infra import children
child = children.start(sys.argv[1], [], log=sys.argv[2], environment=os.environ)
print(child.pid, flush=True)
signal.pause()
"""
_WAIT = """
import signal
print("waiting", flush=True)
signal.pause()
"""


def test_a_script_runs_as_python_runs_it(tmp_path):
    (tmp_path / "beside.py").write_text("word = 'found'\n")
    (tmp_path / "echo.py").write_text(_ECHO)
    log = tmp_path / "logs" / "echo.log"
    for _ in range(2):
        child = children.start(str(tmp_path / "echo.py"), ["--a", "b c"], log=str(log), environment=os.environ)
        assert child.wait(timeout=30) == 3
    assert log.read_text() == "__main__ ['--a', 'b c'] found\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux ends children with their parent")
def test_a_child_ends_with_its_parent_however_that_ends(tmp_path):
    (tmp_path / "wait.py").write_text(_WAIT)
    words = [sys.executable, "-c", _PARENT, str(tmp_path / "wait.py"), str(tmp_path / "log")]
    parent = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert os.getsid(child.pid) != os.getsid(parent.pid)  # Ctrl-C in a terminal does not reach it
    parent.send_signal(signal.SIGKILL)
    parent.wait(timeout=30)
    child.wait(timeout=30)
    assert not child.is_running()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("has_ended", [False, True])
def test_a_child_is_ended_even_where_an_interrupt_left_the_lock_of_popen_held(tmp_path, is_held, has_ended):
    (tmp_path / "wait.py").write_text("" if has_ended else _WAIT)
    child = children.start(str(tmp_path / "wait.py"), [], log=str(tmp_path / "log"), environment=os.environ)
    if has_ended:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    if is_held:
        vars(child)[
            "_waitpid_lock"
        ].acquire()  # as where KeyboardInterrupt comes right behind this line of `Popen.wait`
    children.end(child)
    assert child.returncode == (0 if has_ended else -signal.SIGKILL)
    assert not psutil.pid_exists(child.pid)
    children.end(child)  # again: nothing
