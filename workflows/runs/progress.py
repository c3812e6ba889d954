"""What a terminal shows while a job runs: one line that updates, or plain lines where nobody watches."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

from infra.console import Console, Live, human
from workflows.settings.budget import Budget

_STAGES = {
    "clean": "read and clean",
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

    def show(self, posts: list[dict[str, Any]]) -> None:
        for post in posts:
            if "warning" in post:
                self._screen.warn(post["warning"])
            elif "failed" in post:
                self._screen.warn(post["failed"])
            elif "began_at" in post:
                self._show_group(post)
            elif "train/loss" in post:
                self._live.update(post["step"], _step_line(post, brief=self._live.is_narrow))
            elif "val/bits_per_byte" in post:
                self._screen.line(_validation_line(post))

    def _show_group(self, post: dict[str, Any]) -> None:
        """A group of workers began: the first one as the header says, the others after a failure or a resize."""
        self._groups += 1
        if self._groups > 1:
            workers = f"{post['world_size']} worker" + ("s" if post["world_size"] > 1 else "")
            self._screen.line(f"started again with {workers}, from step {post['began_at']:,}")
            for url in post["skipped"]:
                self._screen.warn(f"{url} is incomplete and skipped")


@contextmanager
def training(screen: Console, budget: Budget, *, start: int) -> Iterator[TrainingView]:
    with screen.progress("train", budget.steps, start=start) as live:
        yield TrainingView(screen, live)


def _step_line(post: dict[str, Any], *, brief: bool) -> str:
    if brief:
        return f"loss {post['train/loss']:.3f}  {human(post['perf/tokens_per_second'])} tok/s"
    parts = [
        f"{key.removeprefix('train/loss_')} {value:.2f}" for key, value in post.items() if key.startswith("train/loss_")
    ]
    detail = f" ({' · '.join(parts)})" if len(parts) > 1 else ""
    mfu = f"  MFU {post['perf/mfu']:.1%}" if "perf/mfu" in post else ""
    return (
        f"loss {post['train/loss']:.3f}{detail}  {human(post['perf/tokens_per_second'])} tok/s{mfu}"
        f"  data wait {post['perf/data_wait_share']:.1%}"
    )


def _validation_line(post: dict[str, Any]) -> str:
    parts = [
        f"{key.removeprefix('val/loss_')} {value:.3f}" for key, value in post.items() if key.startswith("val/loss_")
    ]
    return f"step {post['step']:,}: validation {post['val/bits_per_byte']:.3f} bits per byte · loss {' · '.join(parts)}"
