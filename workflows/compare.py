"""Compare two runs: how their settings differ, from which step on they saw other data, and their curves in one page.

python workflows/compare.py runs/one runs/two
python workflows/compare.py <id in MLflow> <id in MLflow> --html=difference.html
"""

from dataclasses import dataclass, field, replace

from infra import commands, config, storage
from infra.console import Console
from infra.errors import UserError, run_main


@dataclass
class CompareConfig:
    """Which runs to compare; they may also stand alone: compare.py ONE TWO."""

    runs: list[str] = field(default_factory=list)
    """Two runs: folders or URLs, names in ./runs, or ids in MLflow."""
    html: str = "compare.html"
    """The page to write."""


def main() -> None:
    options = config.parse(CompareConfig, description="Compare two runs.", positional="runs").config
    if len(options.runs) != 2:
        raise UserError(
            f"expected two runs to compare, got {len(options.runs)}",
            try_=commands.workflow("compare", "runs/one", "runs/two"),
        )
    # numpy and pyarrow take half a second of CPU time to load: here, when the options are known to be good.
    from workflows.runs import comparison

    one, two = (comparison.read_run(run) for run in options.runs)
    if one.name == two.name:
        one, two = replace(one, name=one.url), replace(two, name=two.url)
    changed = comparison.differences(one.settings, two.settings)
    data = comparison.same_data(one.fingerprints, two.fingerprints)
    screen = Console()
    stores = f"the same, {one.store_digest}" if one.store_digest == two.store_digest else "two different ones"
    rows = [("store", stores), ("data", data), ("settings", f"{len(changed)} differ" if changed else "none differs")]
    screen.header(f"{one.name} and {two.name}", rows)
    if changed:
        screen.table("settings that differ", ["setting", one.name, two.name], changed)
    lasts = [row for row in comparison.last_values(one.curves, two.curves) if row[0].startswith(comparison.HEADLINES)]
    screen.table("last values", ["metric", "step", one.name, "step", two.name], lasts)
    names = comparison.curve_names(one, two)
    curves = {name: (one.curves.get(name, {}), two.curves.get(name, {})) for name in names}
    page = comparison.page((one.name, two.name), data, changed, curves)
    storage.write_bytes(options.html, page.encode())
    screen.line(f"wrote {options.html}: all curves side by side")


if __name__ == "__main__":
    run_main(main)
