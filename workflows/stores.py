"""Keep house among token stores: list them with their sizes and users, and remove those that no run needs.

python workflows/stores.py list
python workflows/stores.py list --root=/data/glm --runs /data/runs ./runs
python workflows/stores.py prune                    # says what it would remove
python workflows/stores.py prune --yes
python workflows/stores.py prune wiki-3f2a91c0 --yes
"""

try:
    from infra.errors import quiet_until_main, run_script

    quiet_until_main(__name__)
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}: run `source .venv/bin/activate` first, and `make install` before if it fails") from None

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from infra import commands, config
from infra.console import Console, counted, duration, human_bytes
from infra.errors import UserError

if TYPE_CHECKING:
    from workflows.housekeeping.stores import StoreEntry


@dataclass
class StoresConfig:
    """What to do with the stores of a folder."""

    words: list[str] = field(default_factory=list)
    """They may also stand alone: `list`; or `prune`, and behind it the names of stores if only these are meant."""
    root: str = "./runs/data"
    """The folder or URL of preparations, `data.root` of your recipes."""
    runs: list[str] = field(default_factory=lambda: ["./runs"])
    """Folders or URLs of runs, `run.storage_path` of your recipes. Runs that lie elsewhere are known by their notes."""
    days: Annotated[float, Ge(0)] = 7.0
    """Without names, prune leaves alone what was written to in so many days: a preparation may still be at work."""
    gone: bool = False
    """Also remove what only runs have read whose folders are not there any more; they may have been moved."""


def main() -> None:
    options, flags, _ = config.parse(
        StoresConfig,
        description="List token stores, and remove those that no run needs.",
        positional="words",
        flags={"yes": "With prune: remove them. Without it they are only named."},
    )
    verb, *names = options.words or [""]
    if verb not in ("list", "prune") or (verb == "list" and names):
        raise UserError(
            f"expected list or prune, got {' '.join(options.words) or 'nothing'}",
            try_=f"{commands.workflow('stores', 'list')}; or {commands.workflow('stores', 'prune')}",
        )
    # numpy and pyarrow take half a second of CPU time to load: here, when the options are known to be good.
    from workflows.housekeeping import stores

    screen = Console()
    entries = stores.list_stores(options.root, options.runs)
    if verb == "list":
        _show(f"stores in {options.root}", entries, screen)
        return
    if names:
        chosen = stores.named(entries, names, gone=options.gone)
    else:
        chosen = stores.removable(entries, days=options.days, gone=options.gone)
    if not chosen:
        screen.line(f"nothing to remove: every store is needed by a run, or newer than {options.days:g} days")
        return
    if flags["yes"]:
        stores.remove(chosen)
        _show("removed", chosen, screen)
    else:
        _show("would be removed", chosen, screen)
        screen.next_steps([("remove them", "the same command with --yes")])


def _show(title: str, entries: "list[StoreEntry]", screen: Console) -> None:
    rows = [
        [
            entry.name,
            human_bytes(entry.num_bytes),
            "not known" if entry.age_s is None else duration(max(entry.age_s, 0.0)),
            _users(entry),
            entry.url,
        ]
        for entry in entries
    ]
    screen.table(title, ["store", "size", "age", "used by", "folder"], rows)
    size = sum(entry.num_bytes for entry in entries)
    screen.line(f"{counted(len(entries), 'store')}, {human_bytes(size)}")


def _users(entry: "StoreEntry") -> str:
    gone = [f"{url} (gone)" for url in entry.gone]
    return ", ".join((*entry.runs, *gone)) or "nobody"


if __name__ == "__main__":
    run_script(main)
