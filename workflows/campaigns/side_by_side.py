"""Cells side by side: each is a command of its own, `finetune.py` with the cell's recipe, on the Ray of the campaign.

A cell takes its workers from Ray in one piece, and holds none while it waits; no more cells are started than Ray, all
its nodes idle, has room for. So two cells never hold each other's CPUs. A cell that fails costs no other.
"""

from __future__ import annotations

import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from infra import children
from infra.children import Process
from infra.cluster.train_workers import stop_signals
from infra.errors import Interrupted

_POLL_S = 0.5
_MOST_TOLD = 2000  # characters of an error


class Ended(NamedTuple):
    """How a cell's command ended: code 0 is a finished run."""

    name: str
    code: int
    seconds: float


@dataclass(frozen=True)
class Standing:
    """How a campaign stands, for whoever watches."""

    running: tuple[str, ...]
    ended: tuple[Ended, ...]


@dataclass(frozen=True)
class Outcome:
    """How the cells of a campaign ended. was_stopped: before all of them were started, or while some ran."""

    ended: tuple[Ended, ...]
    was_stopped: bool


def run_side_by_side(
    names: Sequence[str],
    start: Callable[[str], Process],
    *,
    room: Callable[[], int],
    on_change: Callable[[Ended], None] = lambda ended: None,
    on_poll: Callable[[Standing], None] = lambda standing: None,
    on_stop: Callable[[str], None] = lambda reason: None,
) -> Outcome:
    """Run the commands of these cells, in their order, as many at a time as there is room for, but at least one.

    start: starts the command of a cell; called in the main thread, as this is. on_change: gets each cell that ended;
    on_poll: is called about twice a second. At SIGINT or SIGTERM no more are started, and those that run are asked to
    stop, which leaves a checkpoint; on_stop gets the signal's name. A second SIGINT ends them at once, and raises
    Interrupted; so does an error of any of these functions.
    """
    waiting, running, ended = deque(names), dict[str, tuple[Process, float]](), list[Ended]()
    asked = threading.Event()

    def stop(reason: str) -> None:
        on_stop(reason)
        asked.set()

    def poll() -> None:
        for name, (process, began_at) in [*running.items()]:
            if (code := process.poll()) is not None:
                del running[name]
                ended.append(Ended(name, _code(code, was_stopped=asked.is_set()), time.monotonic() - began_at))
                on_change(ended[-1])
        on_poll(Standing(tuple(running), tuple(ended)))

    try:
        with stop_signals(stop):
            is_told = False
            while running or (waiting and not asked.is_set()):
                while waiting and not asked.is_set() and len(running) < max(1, room()):
                    name = waiting.popleft()
                    running[name] = start(name), time.monotonic()
                if asked.is_set() and not is_told:
                    is_told = True
                    for process, _ in running.values():
                        process.send_signal(signal.SIGTERM)
                poll()
                (time.sleep if is_told else asked.wait)(_POLL_S)
    finally:
        for process, _ in running.values():
            children.end(process)
    return Outcome(tuple(ended), was_stopped=asked.is_set())


def _code(code: int, *, was_stopped: bool) -> int:
    """The exit code of a cell. One that a signal ended before its own handlers were there was interrupted."""
    return Interrupted.exit_code if was_stopped and code < 0 else code


def reason_of(output: str) -> str:
    """What ended a command, from its output: its last error, without the line of its exit code."""
    found = re.findall(r"^error: (.*?)(?=^exit \d+ \(|\n\n|\Z)", output, re.MULTILINE | re.DOTALL)
    return found[-1].strip()[:_MOST_TOLD] if found else "it says nothing"
