"""What the user sees when something goes wrong, and the exit code."""

import os
import pickle
import shlex
import subprocess
import sys

import pytest

from infra.errors import DataError, DivergedError, InfrastructureError, Interrupted, UserError, nearest, root_cause

ERROR = DataError("no store at x", why="prepare was interrupted", try_="run prepare again")


class WorkerGroupError(RuntimeError):
    """Shaped like ray.train's."""

    def __init__(self, failures: dict[int, Exception]):
        super().__init__("workers failed")
        self.worker_failures = failures


class TaskError(RuntimeError):
    """Shaped like ray.exceptions.RayTaskError."""

    def __init__(self, cause: Exception):
        super().__init__("a long stack trace")
        self.cause = cause


class TaskErrorOfData(TaskError, DataError):
    """Ray makes the wrapper an instance of the cause's class, and lets it forward attributes."""

    def __init__(self, cause: Exception):
        self.cause = cause

    def __getattr__(self, name: str):
        return getattr(self.cause, name)


def run(body: str) -> tuple[int, list[str]]:
    code = f"from infra.errors import *\ndef main():\n    {body}\nrun_main(main)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == ""
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("kind", "code", "word"),
    [
        ("UserError", 2, "usage"),
        ("DataError", 3, "data"),
        ("DivergedError", 4, "diverged"),
        ("InfrastructureError", 5, "infrastructure"),
        ("Interrupted", 130, "interrupted"),
    ],
)
def test_a_users_mistake_has_no_stack_trace(kind, code, word):
    lines = ["error: what", "  why: because", "  try: this", "       or that", f"exit {code} ({word})"]
    assert run(f"raise {kind}('what', why='because', try_='this\\nor that')") == (code, lines)


def test_an_unexpected_error_shows_its_cause_first_then_the_trace():
    code, lines = run("1 / 0")
    assert code == 1
    assert lines[0] == "error: ZeroDivisionError: division by zero (<string>:3)"
    assert "Traceback (most recent call last):" in lines
    assert lines[-1] == "exit 1 (unexpected)"


def test_keyboard_interrupt_is_130():
    assert run("raise KeyboardInterrupt") == (130, ["error: interrupted", "exit 130 (interrupted)"])


def test_ctrl_c_is_quiet_while_a_script_loads():
    code = "import os, signal, time; from infra.errors import *; quiet_until_main('__main__')\n"
    code += "os.kill(os.getpid(), signal.SIGINT); time.sleep(30)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "error: interrupted\nexit 130 (interrupted)\n")


@pytest.mark.parametrize("name", ["workflows.prepare", "__main__"])
def test_a_module_that_is_imported_and_a_signal_that_is_ignored_keep_their_handlers(name):
    code = f"import signal; from infra.errors import *; before = signal.getsignal(2); quiet_until_main({name!r})\n"
    code += "print(signal.getsignal(2) is before)"
    run = [
        sys.executable,
        "-c",
        code if name != "__main__" else f"import signal; signal.signal(2, signal.SIG_IGN); {code}",
    ]
    assert subprocess.run(run, capture_output=True, text=True).stdout == "True\n"


@pytest.mark.parametrize("raised", ["raise ImportError('half')", "raise ImportError('half') from None"])
def test_an_error_that_an_interrupted_import_gives_is_the_interrupt(raised):
    body = f"""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        {raised}"""
    assert run(body) == (130, ["error: interrupted", "exit 130 (interrupted)"])


def test_sigterm_is_130():
    killed = "import os, signal, time; os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)"
    assert run(killed) == (130, ["error: interrupted", "exit 130 (interrupted)"])


def test_success_and_exit_pass_through():
    assert run("pass") == (0, [])
    assert run("raise SystemExit(7)") == (7, [])


@pytest.mark.parametrize("kind", [UserError, DataError, DivergedError, InfrastructureError, Interrupted])
def test_errors_pickle_whole(kind):
    copy = pickle.loads(pickle.dumps(kind("m", why="w", try_="t")))
    assert (type(copy), copy.message, copy.why, copy.try_, str(copy)) == (kind, "m", "w", "t", "m\n  why: w\n  try: t")


def test_subclasses_with_their_own_constructor_pickle():
    copy = pickle.loads(pickle.dumps(Missing(3)))
    assert (type(copy), copy.rows, str(copy)) == (Missing, 3, "3 rows missing")


class Missing(DataError):
    def __init__(self, rows: int):
        super().__init__(f"{rows} rows missing")
        self.rows = rows


@pytest.mark.parametrize(
    "wrapped",
    [
        ERROR,
        TaskError(ERROR),
        TaskErrorOfData(ERROR),
        WorkerGroupError({1: ValueError("gloo"), 0: TaskErrorOfData(ERROR)}),
        WorkerGroupError({0: RuntimeError("connection closed by peer"), 1: TaskError(ERROR)}),
        TaskError(WorkerGroupError({0: TaskError(ERROR)})),
    ],
)
def test_root_cause_finds_the_users_error(wrapped):
    assert root_cause(wrapped) is ERROR


def test_root_cause_follows_python_chains_and_survives_loops():
    inner, outer = ValueError("inner"), RuntimeError("outer")
    outer.__cause__ = inner
    assert root_cause(outer) is inner
    inner.__cause__ = outer
    assert root_cause(outer) in (inner, outer)


def test_nearest_names_the_closest_and_lists_all():
    assert nearest("lrr", ["lr", "betas"]) == "; did you mean 'lr'? (have: betas, lr)"
    assert nearest("Token", ["token", "document"]) == "; did you mean 'token'? (have: document, token)"
    assert nearest("zzz", ["lr"]) == " (have: lr)"
    assert nearest("x", []) == ""


SCRIPT = """
import atexit, threading
from infra.errors import *

class Left:
    def __del__(self):
        print("taken apart", flush=True)

left = Left()
atexit.register(print, "asked at the exit")

def main():
    ended = threading.current_thread()
    threading.Thread(target=lambda: (ended.join(), print("a thread is done"))).start()
    print("written")
    raise DataError("what")

run_script(main)
"""


def test_a_script_ends_in_order_and_is_not_taken_apart():
    """What libraries leave behind cannot change the exit code."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (3, "written\na thread is done\nasked at the exit\n")


PRINTS = "from infra.errors import *\ndef main():\n    print('found')\nrun_script(main)"


def ended(stdout: int) -> tuple[int, str]:
    """Exit code and errors of a script that prints to this file, in the buffer that Python has for one."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", PRINTS]
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env=buffered)
    return done.returncode, done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full: nothing that refuses to be written to")
def test_output_that_is_lost_at_the_end_is_told():
    with open("/dev/full", "w") as full:
        said = "error: the output is not complete: [Errno 28] No space left on device\nexit 5 (infrastructure)\n"
        assert ended(full.fileno()) == (5, said)


def test_output_that_nobody_reads_any_more_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    assert ended(writer) == (0, "")
    os.close(writer)


def test_a_script_without_an_output_ends_well():
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(PRINTS)} >&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
