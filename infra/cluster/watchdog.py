"""A worker that hangs must end, or the others wait for it for ever: Ray restarts what has died, and only that.

Nothing in the hanging process can be relied on (it may hold the interpreter's lock), so the end is left to a thread of
the C library that `faulthandler` runs: it writes where each thread stood to standard error and exits.
"""

import faulthandler
import sys


class Watchdog:
    """Ends this process `limit_s` seconds after the last `beat`, unless it is closed; 0: never.

    One watchdog per process. `benchmarks/overhead.py` times a beat.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s

    def beat(self) -> None:
        if self.limit_s > 0:
            faulthandler.dump_traceback_later(self.limit_s, exit=True, file=sys.__stderr__ or 2)

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
