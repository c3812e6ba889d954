"""Compare two runs: how their settings differ, from which step on they saw other data, and their curves in one page.

python workflows/compare.py runs/one runs/two
python workflows/compare.py <id in MLflow> <id in MLflow> --html=difference.html
"""

from dataclasses import dataclass, field
from pathlib import Path

from infra import config
from infra.console import Console
from infra.errors import UserError, run_main
from workflows.runs.comparison import _SHOWN, curve_names, differences, last_values, page, read_run, same_data


@dataclass
class CompareConfig:
    """Which runs to compare; they may also stand alone: compare.py ONE TWO."""

    runs: list[str] = field(default_factory=list)
    """Two runs: folders or URLs, names in ./runs, or ids in MLflow."""
    html: str = "compare.html"
    """The page to write."""


def main() -> None:
    wanted = config.parse(CompareConfig, description="Compare two runs.", positional="runs").config
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


if __name__ == "__main__":
    run_main(main)
