"""What the user sees while a command runs: a header, one live line, warnings, tables, and the command to run next.

On a terminal progress is one line that updates itself; elsewhere a plain line at most every `interval_s` seconds. Text
is printed as it is (`[MASK]` is not markup) and wrapped in tables alone. rich respects NO_COLOR and TERM=dumb.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

if TYPE_CHECKING:
    from rich.progress import Progress


@dataclass
class ConsoleConfig:
    interval_s: Annotated[float, Ge(0)] = 10.0
    """Seconds between progress lines when the output is not a terminal."""
    quiet: bool = False
    """Print warnings and errors only."""


class Console:
    """Writes to `file`, stdout by default; `clock` is a monotonic clock in seconds."""

    def __init__(
        self,
        config: ConsoleConfig | None = None,
        *,
        file: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        from rich.console import Console as RichConsole

        self.config, self.clock = config or ConsoleConfig(), clock
        self.rich = RichConsole(file=file, highlight=False, markup=False, emoji=False)
        if not self.rich.is_terminal:
            self.rich = RichConsole(file=file, highlight=False, markup=False, emoji=False, width=160)

    @property
    def is_live(self) -> bool:
        """Whether the output is a terminal on which a line can be updated in place."""
        return self.rich.is_terminal and not self.rich.is_dumb_terminal

    def header(self, title: str, rows: Iterable[tuple[str, str]] = ()) -> None:
        """A title, and below it aligned lines of (name, value)."""
        if not self.config.quiet:
            self._print(title, "bold")
            self._rows(rows, "cyan")

    def line(self, text: str = "") -> None:
        if not self.config.quiet:
            self._print(text)

    def warn(self, text: str) -> None:
        """Printed even when quiet."""
        self._print(f"warning: {text}", "yellow")

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """A table with a title; columns of numbers are aligned to the right."""
        if self.config.quiet:
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        cells = [list(row) for row in rows]
        table = Table(title=Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        for index, name in enumerate(columns):
            numbers = all(isinstance(row[index], int | float) for row in cells)
            table.add_column(Text(name), justify="right" if numbers and cells else "left", overflow="fold")
        for row in cells:
            table.add_row(*(Text(str(cell)) for cell in row))
        self.rich.print(table)

    def next_steps(self, steps: Iterable[tuple[str, str]]) -> None:
        """Lines of (purpose, command); the last one printed is a command that can be pasted."""
        if not self.config.quiet:
            self._print("next", "bold")
            self._rows(steps, "green")

    @contextlib.contextmanager
    def progress(
        self, label: str, total: float | None = None, *, start: float = 0, interval_s: float | None = None
    ) -> Iterator[Live]:
        """Show the progress of a job: `with console.progress("reading", 100) as live: live.update(1, "a.txt")`.

        start: how much an earlier run did. The time left is estimated from the rate since the first update.
        """
        seconds = self.config.interval_s if interval_s is None else interval_s
        live = Live(self, label, total, start, seconds, self.clock())
        if not self.is_live or self.config.quiet:
            try:
                yield live
            finally:
                live.finish()
            return
        with _bar(self.rich, live) as bar:
            live.bar = bar
            yield live

    def _rows(self, rows: Iterable[tuple[str, str]], style: str) -> None:
        from rich.text import Text

        pairs = list(rows)
        width = max((len(name) for name, _ in pairs), default=0)
        for name, text in pairs:
            self.rich.print(Text.assemble(f"  {name:<{width}}  ", (text, style)), soft_wrap=True)

    def _print(self, text: str, style: str | None = None) -> None:
        self.rich.print(text, style=style, soft_wrap=True)


@dataclass
class Live:
    """The progress of one job; made by `Console.progress`."""

    console: Console
    label: str
    total: float | None
    start: float
    interval_s: float
    started_at: float
    done: float = 0
    text: str = ""
    bar: Progress | None = None
    printed_at: float | None = None
    pending: bool = False
    """Whether the last update is not printed yet."""
    first: tuple[float, float] | None = None
    """(done, time) of the first update: the time before it, when processes start, says nothing about the rate."""

    @property
    def is_narrow(self) -> bool:
        """Whether the terminal has no room for details."""
        return self.console.is_live and self.console.rich.width < 110

    def update(self, done: float, text: str = "", *, total: float | None = None) -> None:
        self.done, self.text, self.total, self.pending = done, text, total or self.total, True
        self.first = self.first or (done, self.console.clock())
        if self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=done, total=self.total, text=text, left=self._time_left())
            return
        now = self.console.clock()
        if self.printed_at is None or now - self.printed_at >= self.interval_s:
            self.printed_at = now
            self._print()

    def finish(self) -> None:
        """Print the last update if it is not printed yet."""
        if self.pending:
            self._print()

    def _print(self) -> None:
        self.pending = False
        share = f"/{human(self.total)}  {100 * self.done / self.total:.1f} %" if self.total else ""
        parts = [f"{self.label} {human(self.done)}{share}", self.text, self._time_left()]
        self.console.line("  ".join(part for part in parts if part))

    def _time_left(self) -> str:
        if not self.total:
            return ""
        if self.done >= self.total:
            return f"took {duration(self.console.clock() - self.started_at)}"
        assert self.first is not None
        gained, elapsed_s = self.done - self.first[0], self.console.clock() - self.first[1]
        return f"eta {duration(elapsed_s * (self.total - self.done) / gained)}" if gained > 0 else ""


def human(number: float) -> str:
    """1234567 -> "1.2M"; 999 -> "999"."""
    return _scaled(number, 1000, ["", "k", "M", "B", "T"], "")


def human_bytes(number: float) -> str:
    """1234567 -> "1.2 MB" (powers of 1000)."""
    return _scaled(number, 1000, ["B", "kB", "MB", "GB", "TB", "PB"], " ")


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 step, 1,200 steps."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """3661 -> "1h01m"; the two largest units."""
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    minutes, hours, days = whole // 60, round(seconds / 60) // 60, round(seconds / 3600) // 24
    if days:
        return f"{days}d{round(seconds / 3600) % 24:02d}h"
    if hours:
        return f"{hours}h{round(seconds / 60) % 60:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"


def sparkline(values: Sequence[float]) -> str:
    """Numbers as bars of eight heights: [1, 2, 3, 8] -> "▁▂▃█". Those that are not finite are left out."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return "".join(_BARS[round((value - low) / ((high - low) or 1) * (len(_BARS) - 1))] for value in finite)


def _scaled(number: float, base: int, units: list[str], gap: str) -> str:
    value, index = float(number), 0
    # 999,950 would round to 1000.0k.
    while abs(value) >= base - 0.05 * (index > 0) and index < len(units) - 1:
        value, index = value / base, index + 1
    digits = f"{value:.1f}".removesuffix(".0") if index or value != int(value) else str(int(value))
    return f"{digits}{gap}{units[index]}"


_BARS = "▁▂▃▄▅▆▇█"
_MIN_BAR_WIDTH = 140  # columns of a terminal: a training's line with three losses takes up to 115 without a bar


def _bar(console: Any, live: Live) -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
    from rich.table import Column

    def text_column(template: str, style: str = "none", **column: Any) -> TextColumn:
        return TextColumn(template, style=style, markup=False, table_column=Column(no_wrap=True, **column))

    done = text_column("{task.completed:,.0f}/{task.total:,.0f}")
    bars = [BarColumn(bar_width=24)] if console.width >= _MIN_BAR_WIDTH else []
    shape = [*bars, done] if live.total else [SpinnerColumn("dots")]
    # On a narrow terminal the bar is left out first, then the text is shortened: step and time left stay readable.
    text = text_column("{task.fields[text]}", ratio=1, overflow="ellipsis")
    label, left = text_column("{task.description}", "bold"), text_column("{task.fields[left]}", "dim")
    bar = Progress(label, *shape, text, left, console=console, refresh_per_second=4, expand=True)
    bar.add_task(live.label, total=live.total, completed=int(live.start), text="", left="")
    return bar
