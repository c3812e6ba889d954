"""Compare two runs: how their settings differ, from which step on they saw other data, and their curves in one page.

python workflows/compare.py runs/one runs/two
python workflows/compare.py <id in MLflow> <id in MLflow> --html=difference.html
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from infra import config, storage
from infra.console import Console
from infra.errors import UserError, run_main
from workflows.runs.comparison import page
from workflows.runs.history import fingerprints, read_log
from workflows.runs.run import find_run
from workflows.settings.recipe import Recipe

_SHOWN = ("train/loss", "val/loss", "val/bits_per_byte", "perf/tokens_per_second")


@dataclass
class CompareConfig:
    """Which runs to compare; they may also stand alone: compare.py ONE TWO."""

    runs: list[str] = field(default_factory=list)
    """Two runs: folders or URLs, names in ./runs, or ids in MLflow."""
    html: str = "compare.html"
    """The page to write."""


class Told(NamedTuple):
    """What a run says of itself: its folder and name, settings by dotted key, metric -> {step: value}, step ->
    fingerprint of its batch.
    """

    url: str
    name: str
    settings: dict[str, str]
    curves: dict[str, dict[int, float]]
    fingerprints: dict[int, int]


def main() -> None:
    words = sys.argv[1:]
    count = next((index for index, word in enumerate(words) if word.startswith("-")), len(words))
    named = [f"--runs={json.dumps(words[:count])}"] if count else []
    wanted, _ = config.parse(CompareConfig, description="Compare two runs.", argv=[*named, *words[count:]])
    if len(wanted.runs) != 2:
        raise UserError(f"two runs are compared, {len(wanted.runs)} were named", try_="compare.py runs/one runs/two")
    one, two = (read_run(run) for run in wanted.runs)
    if one.name == two.name:
        one, two = one._replace(name=one.url), two._replace(name=two.url)
    changed, data = differences(one.settings, two.settings), same_data(one.fingerprints, two.fingerprints)
    screen = Console()
    screen.header(f"{one.name} and {two.name}", [("data", data), ("settings", f"{len(changed)} differ")])
    if changed:
        screen.table("settings that differ", ["setting", one.name, two.name], changed)
    lasts = [row for row in last_values(one.curves, two.curves) if row[0].startswith(_SHOWN)]
    screen.table("last values", ["metric", "step", one.name, "step", two.name], lasts)
    curves = {name: (one.curves.get(name, {}), two.curves.get(name, {})) for name in curve_names(one, two)}
    Path(wanted.html).write_text(page((one.name, two.name), data, changed, curves), encoding="utf-8")
    screen.line(f"wrote {wanted.html}: all curves side by side")


def read_run(run: str) -> Told:
    """The run of a folder, URL, name or MLflow id. Raises DataError when there is none."""
    url = find_run(run)
    recipe = config.from_yaml(Recipe, storage.read_bytes(storage.join(url, "config.yaml")).decode())
    record = storage.read_json(storage.join(url, "run.json"))
    curves: dict[str, dict[int, float]] = {}
    points = read_log(url)
    for point in points:
        for name, value in point["values"].items():
            curves.setdefault(name, {})[point["step"]] = value
    settings = config.flatten(recipe) | {"store digest": str(record.get("store_digest", ""))[:16]}
    return Told(url, storage.base_name(url), settings, curves, fingerprints(points))


def differences(one: dict[str, str], two: dict[str, str]) -> list[tuple[str, str, str]]:
    """(setting, its value in one, in two) where they are not the same; "-" where a run has no such setting."""
    keys = sorted({*one, *two}, key=lambda key: (key not in one, key))
    rows = [(key, one.get(key, "-"), two.get(key, "-")) for key in keys]
    return [row for row in rows if row[1] != row[2]]


def same_data(one: dict[int, int], two: dict[int, int]) -> str:
    """How long two runs saw the same batches, by the fingerprints that both logged."""
    common = sorted({*one} & {*two})
    if not common:
        return "not comparable: no step was logged by both"
    other = next((step for step in common if one[step] != two[step]), None)
    if other is None:
        return f"the same batches at all {len(common)} steps that both logged, up to step {common[-1]:,}"
    before = [step for step in common if step < other]
    if not before:
        return f"other batches from step {other:,} on, the first that both logged"
    return f"the same batches up to step {before[-1]:,}, others at step {other:,}, the next that both logged"


def last_values(one: dict[str, Any], two: dict[str, Any]) -> list[tuple[str, Any, Any, Any, Any]]:
    """(metric, last step of one, value, last step of two, value) of each metric that both have."""
    ends = [(name, max(one[name]), max(two[name])) for name in sorted({*one} & {*two})]
    return [(name, a, f"{one[name][a]:.5g}", b, f"{two[name][b]:.5g}") for name, a, b in ends]


def curve_names(*runs: Told) -> list[str]:
    """Metrics with a curve: those that a run is judged by first, then training, validation and speed."""
    order = {"train": 0, "val": 1, "perf": 2}
    names = {name for run in runs for name, points in run.curves.items() if len(points) > 1}
    return sorted(
        names - {"data/fingerprint_high", "data/fingerprint_low"},
        key=lambda name: (name not in _SHOWN, order.get(name.split("/")[0], 3), name),
    )


if __name__ == "__main__":
    run_main(main)
