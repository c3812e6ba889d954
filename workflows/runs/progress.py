"""What a terminal shows while a job runs: one line that updates, or plain lines where nobody watches."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

from infra.console import Console, Live, counted, human
from workflows.training.messages import Began, Failed, Message, Point, Warned

_STAGES = {
    "clean": "read and clean",
    "tokenizer": "train a tokenizer",
    "decontaminate": "decontaminate",
    "select": "find duplicates",
    "sign": "sign documents",
    "compare": "near duplicates",
    "tokens": "tokenise and pack",
    "blanks": "draw blanks",
    "verify": "verify",
}


class Stage(NamedTuple):
    """What came of a stage of the preparation."""

    seconds: float
    text: str


Stages = dict[str, Stage]
"""By the name that the screen shows, in the order in which they ran."""


def preparation(screen: Console, stages: Stages | None = None) -> Callable[[str, Iterable[Any], int], Iterator[Any]]:
    """The progress of `pipelines.prepare`: a line per stage, with what its finished tasks add up to.

    Fills `stages`, if given.
    """

    def show(stage: str, results: Iterable[Any], total: int) -> Iterator[Any]:
        if total == 0:
            yield from results
            return
        started_at = time.perf_counter()
        if stage == "tokenizer":  # seconds that pass, and at the end what they were for
            with screen.progress(_STAGES[stage]) as live:
                for result in results:
                    live.update(round(time.perf_counter() - started_at), "seconds")
                    yield result
            if stages is not None:
                stages[_STAGES[stage]] = Stage(time.perf_counter() - started_at, "trained")
            return
        sums: dict[str, float] = {}
        with screen.progress(_STAGES[stage], total) as live:
            for done, result in enumerate(results, start=1):
                for key, value in _figures(stage, result).items():
                    sums[key] = sums.get(key, 0) + value
                text = _describe(stage, sums, time.perf_counter() - started_at)
                live.update(done, text)
                yield result
                if stages is not None:
                    stages[_STAGES[stage]] = Stage(time.perf_counter() - started_at, text)

    return show


def _figures(stage: str, result: Any) -> dict[str, float]:
    if stage == "clean":
        return {
            "documents": sum(unit.kept for unit in result.units),
            "dropped": sum(sum(unit.dropped.values()) for unit in result.units),
            "num_bytes": sum(unit.num_bytes for unit in result.units),
        }
    if stage == "verify":
        return {"shards": 1, "damaged": result.problem is not None}
    if stage in ("decontaminate", "select", "sign", "compare"):
        return asdict(result)
    if stage == "tokens":
        return {"tokens": result.shard.tokens, "rows": result.shard.rows, "num_bytes": result.shard.num_bytes}
    return {"blanks": result.blanks, "segments": result.segments}


def _describe(stage: str, sums: dict[str, float], elapsed_s: float) -> str:
    if stage == "select":
        return f"{human(sums['dropped'])} of {human(sums['documents'])} documents left out"
    if stage == "verify":
        return f"{human(sums['shards'])} shards, {human(sums['damaged'])} damaged"
    if stage == "sign":
        return f"{human(sums['documents'])} documents"
    if stage == "compare":
        return f"{human(sums['links'])} similar pairs"
    if stage == "decontaminate":
        return f"{human(sums['matches'])} matches in {human(sums['documents'])} documents"
    if stage == "blanks":
        return f"{human(sums['blanks'])} blanks in {human(sums['segments'])} segments"
    rate = f"{sums['num_bytes'] / 1e6 / max(elapsed_s, 1e-9):.1f} MB/s"
    if stage == "clean":
        return f"{human(sums['documents'])} documents kept, {human(sums['dropped'])} dropped, {rate}"
    return f"{human(sums['tokens'])} tokens in {human(sums['rows'])} rows, {rate}"


class TrainingView:
    """Shows what rank 0 posts."""

    def __init__(self, screen: Console, live: Live) -> None:
        self._screen, self._live = screen, live
        self._groups = 0

    def show(self, messages: list[Message]) -> None:
        for message in messages:
            match message:
                case Warned(text) | Failed(text):
                    self._screen.warn(text)
                case Began():
                    self._show_group(message)
                case Point(step, values) if "train/loss" in values:
                    self._live.update(step, _step_line(values, brief=self._live.is_narrow))
                case Point(step, values) if "val/bits_per_byte" in values:
                    self._screen.line(_validation_line(step, values))
                case Point(step, values) if "val/accuracy" in values:
                    right = f"{values['val/accuracy']:.1f} % right"
                    self._screen.line(f"step {step:,}: validation {right} · loss {values['val/loss']:.3f}")

    def _show_group(self, group: Began) -> None:
        """A group of workers began: the first one as the header says, the others after a failure or a resize."""
        self._groups += 1
        if self._groups > 1:
            self._screen.line(f"started again with {counted(group.num_workers, 'worker')}, from step {group.step:,}")
            for url in group.skipped:
                self._screen.warn(f"{url} is incomplete and skipped")


@contextmanager
def training(screen: Console, steps: int, *, start: int) -> Iterator[TrainingView]:
    with screen.progress("train", steps, start=start) as live:
        yield TrainingView(screen, live)


def _step_line(values: dict[str, float], *, brief: bool) -> str:
    rate = f"{human(values['perf/tokens_per_second'])} tok/s"
    if brief:
        return f"loss {values['train/loss']:.3f}  {rate}"
    parts = [f"{name} {loss:.2f}" for name, loss in _losses(values, "train/loss_")]
    detail = f" ({' · '.join(parts)})" if len(parts) > 1 else ""
    mfu = f"  MFU {values['perf/mfu']:.1%}" if "perf/mfu" in values else ""
    return f"loss {values['train/loss']:.3f}{detail}  {rate}{mfu}  data wait {values['perf/data_wait_share']:.1%}"


def _validation_line(step: int, values: dict[str, float]) -> str:
    losses = " · ".join(f"{name} {loss:.3f}" for name, loss in _losses(values, "val/loss_"))
    return f"step {step:,}: validation {values['val/bits_per_byte']:.3f} bits per byte · loss {losses}"


def _losses(values: dict[str, float], prefix: str) -> list[tuple[str, float]]:
    """The losses of the objectives, by their names."""
    return [(name.removeprefix(prefix), value) for name, value in values.items() if name.startswith(prefix)]
