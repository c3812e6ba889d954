"""A process that beats lives, one that stops ends with a word of where it stood."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
sys.path.insert(0, {root!r})
from infra.cluster.watchdog import Watchdog

def stands_still():
    threading.Event().wait(20)

watchdog = Watchdog({limit_s})
watchdog.beat()
{then}
"""


def run(root, limit_s: float, then: str) -> subprocess.CompletedProcess:
    program = PROGRAM.format(root=str(root), limit_s=limit_s, then=then)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=40)


def test_a_process_that_hangs_ends_and_says_where(pytestconfig):
    done = run(pytestconfig.rootpath, 0.3, "stands_still()")
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert "stands_still" in done.stderr


@pytest.mark.parametrize(
    ("limit_s", "then"),
    [
        (2.0, "for _ in range(6): threading.Event().wait(0.5); watchdog.beat()"),
        (0.3, "watchdog.close(); threading.Event().wait(1)"),
        (0, "threading.Event().wait(1)"),
    ],
    ids=["beats", "closed", "off"],
)
def test_a_process_that_does_not_hang_lives(pytestconfig, limit_s, then):
    done = run(pytestconfig.rootpath, limit_s, then + "\nprint('alive')")
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
