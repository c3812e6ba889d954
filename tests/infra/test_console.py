"""What is printed, word for word, where the output is not a terminal; and that a terminal is used as one."""

import io
import re

import pytest

from infra.console import Console, ConsoleConfig, counted, duration, human, human_bytes, sparkline


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock():
    return Clock()


def written(console: Console) -> list[str]:
    return console.rich.file.getvalue().splitlines()


def plain(clock=None, **config) -> Console:
    return Console(ConsoleConfig(**config), file=io.StringIO(), clock=clock or Clock())


def test_lines_are_printed_as_they_are():
    console = plain()
    console.header("glm pretrain · [MASK]", [("store", "s3://b [bold]"), ("budget", "20B tokens")])
    console.line("x" * 300)
    console.line(":smile: /path/1.5 [/]")
    console.warn("disk is full")
    console.next_steps([("look", "mlflow ui"), ("fill a blank", "python workflows/generate.py")])
    assert written(console) == [
        "glm pretrain · [MASK]",
        "  store   s3://b [bold]",
        "  budget  20B tokens",
        "x" * 300,
        ":smile: /path/1.5 [/]",
        "warning: disk is full",
        "next",
        "  look          mlflow ui",
        "  fill a blank  python workflows/generate.py",
    ]


def test_tables_align_numbers_to_the_right():
    console = plain()
    console.table("Sources", ["name", "tokens"], [["wiki", 12345], ["a [b]", 7]])
    assert [line.rstrip() for line in written(console) if line.strip() and "─" not in line] == [
        "Sources",
        " name    tokens",
        " wiki     12345",
        " a [b]        7",
    ]


def test_quiet_leaves_warnings():
    console = plain(quiet=True)
    console.header("a", [("b", "c")])
    console.line("d")
    console.table("t", ["a"], [[1]])
    console.next_steps([("e", "f")])
    with console.progress("g", 2) as live:
        live.update(1)
    console.warn("w")
    assert written(console) == ["warning: w"]


def test_progress_without_a_terminal_is_first_then_one_line_per_interval_then_last(clock):
    console = plain(clock, interval_s=10)
    with console.progress("step", 100, start=20) as live:
        for second, done in [(2, 30), (5, 40), (11, 50), (12, 60), (30, 70), (31, 100)]:
            clock.now = second
            live.update(done, f"loss {done}")
    assert written(console) == [
        "step 30/100  30.0 %  loss 30",
        "step 60/100  60.0 %  loss 60  eta 13s",
        "step 70/100  70.0 %  loss 70  eta 21s",
        "step 100/100  100.0 %  loss 100  took 31s",
    ]


def test_progress_without_a_total_and_after_an_error(clock):
    console = plain(clock)

    def read() -> None:
        with console.progress("reading", interval_s=5) as live:
            live.update(1_234_567, "a.txt")
            live.update(2_000_000, "b.txt")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read()
    assert written(console) == ["reading 1.2M  a.txt", "reading 2M  b.txt"]


def test_a_terminal_gets_one_updating_line(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    console = Console(file=Terminal())
    assert console.is_live
    with console.progress("step", 10) as live:
        live.update(5, "loss [MASK] 3.2")
        console.line("between")
    text = console.rich.file.getvalue()
    assert "\r" in text
    assert "loss [MASK] 3.2" in text
    assert "between" in text


@pytest.mark.parametrize("columns", [80, 120])
def test_step_bar_and_time_left_stay_on_a_narrow_terminal(monkeypatch, clock, columns):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    console = Console(file=Terminal(), clock=clock)
    with console.progress("train", 362) as live:
        assert live.is_narrow == (columns == 80)
        for step in (100, 145):
            clock.now += 30
            live.update(step, "loss 5.818 and a long story " * 4)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", console.rich.file.getvalue()).replace("\r", "\n").splitlines()
    line = next(line for line in reversed(last) if "145/362" in line)
    assert line.startswith("train ")
    assert "eta 2m25s" in line
    assert "loss 5.818" in line
    assert len(line) <= columns


def test_no_color_and_dumb_terminals_are_respected(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    console = Console(file=Terminal())
    console.warn("plain")
    assert "\x1b[33m" not in console.rich.file.getvalue()
    monkeypatch.setenv("TERM", "dumb")
    assert not Console(file=Terminal()).is_live


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1k"),
        (12_345, "12.3k"),
        (1_234_567, "1.2M"),
        (999_960, "1M"),
        (999_940, "999.9k"),
        (20e9, "20B"),
        (3.3e15, "3300T"),
        (-1500, "-1.5k"),
        (0.25, "0.2"),
    ],
)
def test_human(number, text):
    assert human(number) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 B"), (999, "999 B"), (1_234_567, "1.2 MB"), (5e12, "5 TB")])
def test_human_bytes(number, text):
    assert human_bytes(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "0.5s"),
        (9.96, "10s"),
        (59.4, "59s"),
        (59.6, "1m00s"),
        (61, "1m01s"),
        (3599.9, "1h00m"),
        (3661, "1h01m"),
        (86_399, "1d00h"),
        (90_061, "1d01h"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_number_has_its_noun():
    assert [counted(n, "step") for n in (0, 1, 2, 1200)] == ["0 steps", "1 step", "2 steps", "1,200 steps"]


def test_sparkline():
    assert sparkline([1, 2, 3, 8]) == "▁▂▃█"
    assert sparkline([5.0, 5.0]) == "▁▁"
    assert sparkline([2.0, float("nan"), 1.0]) == "█▁"
    assert sparkline([]) == ""
