"""Scripts of ours as child processes: each in a session of its own, so that Ctrl-C in a terminal reaches this process
alone, which passes it on; and none outlives this process, however that ends (on Linux).

    python infra/children.py PARENT SCRIPT ARGUMENTS     runs a script as `python SCRIPT` would, a child of PARENT

The kernel ends a child when the thread that started it ends: start them from the main thread.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

_PR_SET_PDEATHSIG = 1  # of <linux/prctl.h>


Process = subprocess.Popen[bytes]


def start(script: str, arguments: Sequence[str], *, log: str, environment: Mapping[str, str]) -> Process:
    """Start a script with this interpreter. log: path of a file for its output; environment: all its variables."""
    os.makedirs(os.path.dirname(log), exist_ok=True)
    words = [sys.executable, os.path.abspath(__file__), str(os.getpid()), script, *arguments]
    with open(log, "wb") as output:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,
        )


def end(process: Process) -> None:
    """Kill a process, and wait until it is gone. Where the exception of a signal came while `Popen.wait` or `poll` held
    its lock, `Popen.wait` would wait for that lock for good (CPython 3.11).
    """
    if process.returncode is not None:
        return
    process.kill()
    with contextlib.suppress(ChildProcessError):  # somebody has waited for it
        _, status = os.waitpid(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)


def _run(parent: int, script: str) -> None:
    """Run the script that the rest of the command line is for, until the parent ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it had ended before
            sys.exit(1)
    sys.path[0] = os.path.dirname(os.path.abspath(script))
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    _, parent, *sys.argv = sys.argv
    _run(int(parent), sys.argv[0])
