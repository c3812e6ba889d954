"""Compare runs: how their settings differ, whether they saw the same data and validate on the same text, their last
values, best first, and their curves in one page.

python workflows/compare.py runs/one runs/two runs/three
python workflows/compare.py <id in MLflow> <id in MLflow> --html=difference.html
"""

try:
    from infra.errors import quiet_until_main, run_script

    quiet_until_main(__name__)
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `source .venv/bin/activate` first, and `make install` before if it fails") from None

from dataclasses import dataclass, field

from infra import commands, config, storage
from infra.console import Console
from infra.errors import UserError


@dataclass
class CompareConfig:
    """Which runs to compare; they may also stand alone: compare.py ONE TWO THREE."""

    runs: list[str] = field(default_factory=list)
    """Two runs or more: folders or URLs, names in ./runs, or ids in MLflow."""
    html: str = "compare.html"
    """The page to write."""


def main() -> None:
    options = config.parse(CompareConfig, description="Compare runs.", positional="runs").config
    if len(options.runs) < 2:
        raise UserError(
            f"expected two runs or more to compare, got {len(options.runs)}",
            try_=commands.workflow("compare", "runs/one", "runs/two"),
        )
    # numpy and pyarrow take half a second of CPU time to load: here, when the options are known to be good.
    from workflows.runs import comparison

    runs = comparison.told_apart([comparison.read_run(run) for run in options.runs])
    first, others = runs[0], runs[1:]
    changed, left_out = comparison.without_own(runs, comparison.differences([run.settings for run in runs]))
    digests = dict.fromkeys(run.store_digest for run in runs)
    facts = {"store": f"the same, {first.store_digest}" if len(digests) == 1 else f"{len(digests)} different ones"}
    for other in others:
        name = "data" if len(others) == 1 else f"data of {other.name}, beside {first.name}"
        facts[name] = comparison.same_data(first.fingerprints, other.fingerprints)
    facts["validation"] = comparison.same_text(runs)
    facts |= {"kinds": left_out} if left_out else {}
    screen = Console()
    settings = f"{len(changed)} differ{'s' if len(changed) == 1 else ''}" if changed else "none differs"
    screen.header(" and ".join(run.name for run in runs), [*facts.items(), ("settings", settings)])
    if changed:
        screen.table("settings that differ", ["setting", *(run.name for run in runs)], changed)
    screen.table("last values, best first", *comparison.last_values(runs))
    storage.write_bytes(options.html, comparison.page(runs, facts, changed).encode())
    screen.line(f"wrote {options.html}: all curves, over steps and over tokens")


if __name__ == "__main__":
    run_script(main)
