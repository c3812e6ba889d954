"""Ends a worker that hangs: the others would wait for it forever, and Ray restarts dead processes alone.

No Python code in a hanging process can be relied on (another thread may hold the interpreter's lock), so a thread in C
ends it, which `faulthandler` runs: it writes the stack of each thread to standard error and exits.
"""

import faulthandler
import sys


class Watchdog:
    """Ends this process `limit_s` seconds after the last `beat` unless it was closed. limit_s=0: never.

    One watchdog per process. `benchmarks/overhead.py` times a beat.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s

    def beat(self) -> None:
        if self.limit_s > 0:
            faulthandler.dump_traceback_later(self.limit_s, exit=True, file=sys.__stderr__ or 2)

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
