"""Commands side by side: never more than there is room for, and how they end and are stopped."""

import os
import signal
import subprocess
import sys
from collections import deque

import pytest

from infra.errors import Interrupted
from workflows.campaigns import side_by_side
from workflows.campaigns.side_by_side import Ended, Standing, reason_of, run_side_by_side

_WAITS = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
pathlib.Path(sys.argv[1]).touch()
while True: signal.pause()
"""
_DEAF = _WAITS.replace("lambda *_: sys.exit(130)", "signal.SIG_IGN")


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(side_by_side, "_POLL_S", 0.01)


def python(code: str, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", "-S", "-c", code, *words], start_new_session=True)


def test_all_run_in_their_order_and_never_more_than_there_is_room_for():
    running, most, begun = 0, 0, []
    rooms = deque([2, 2, 0, 3])

    def start(name: str) -> subprocess.Popen[bytes]:
        nonlocal running, most
        begun.append(name)
        running += 1
        most = max(most, running)
        return python(f"raise SystemExit({name[-1]})")

    def end(ended: Ended) -> None:
        nonlocal running
        running -= 1

    names = [f"cell-{number}-{code}" for number, code in enumerate((0, 3, 0, 5, 0))]
    outcome = run_side_by_side(
        names, start, room=lambda: rooms[0] if len(rooms) == 1 else rooms.popleft(), on_change=end
    )
    assert (begun, most <= 3, running, outcome.was_stopped) == (names, True, 0, False)
    assert sorted((one.name, one.code) for one in outcome.ended) == [(name, int(name[-1])) for name in names]


def test_without_room_one_runs_at_a_time():
    seen = []
    run_side_by_side(
        ["a", "b"],
        lambda name: python("pass"),
        room=lambda: 0,
        on_poll=lambda standing: seen.append(len(standing.running)),
    )
    assert max(seen) <= 1


def test_a_stop_is_passed_on_and_starts_no_more(tmp_path):
    stops = []

    def interrupt(standing: Standing) -> None:
        if all((tmp_path / name).exists() for name in "ab") and not stops:
            stops.append("asked")
            os.kill(os.getpid(), signal.SIGINT)

    outcome = run_side_by_side(
        ["a", "b", "c"],
        lambda name: python(_WAITS, str(tmp_path / name)),
        room=lambda: 2,
        on_poll=interrupt,
        on_stop=stops.append,
    )
    assert stops == ["asked", "SIGINT"]
    assert (outcome.was_stopped, sorted((one.name, one.code) for one in outcome.ended)) == (
        True,
        [("a", 130), ("b", 130)],
    )
    assert not (tmp_path / "c").exists()


def test_a_second_ctrl_c_ends_what_does_not_listen(tmp_path):
    started = []

    def start(name: str) -> subprocess.Popen[bytes]:
        started.append(python(_DEAF, str(tmp_path / name)))
        return started[-1]

    def interrupt(standing: Standing) -> None:
        if (tmp_path / "a").exists():  # again and again, as two at once count as one
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="interrupted twice"):
        run_side_by_side(["a"], start, room=lambda: 1, on_poll=interrupt)
    assert started[0].poll() == -signal.SIGKILL


def test_what_went_wrong_is_read_from_the_output():
    told = "glm finetune\nerror: a is gone\n  why: b\n  try: c\nexit 3 (data)\n"
    assert reason_of("error: earlier\nexit 2 (usage)\n" + told) == "a is gone\n  why: b\n  try: c"
    assert reason_of("error: ValueError: x (f.py:3)\n\nTraceback\n") == "ValueError: x (f.py:3)"
    assert reason_of("Killed\n") == "it says nothing"
