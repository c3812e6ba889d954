"""The command line of a script that works on a recipe."""

from infra import config
from infra.cluster import connect
from infra.config import Parsed
from workflows.settings.given_store import settle
from workflows.settings.places import resolve_paths
from workflows.settings.recipe import R


def read_recipe(
    root: type[R],
    *,
    description: str,
    common: tuple[str, ...],
    flags: dict[str, str] | None = None,
    moved: dict[str, str] | None = None,
) -> Parsed[R]:
    """The recipe that the command line gives, its paths absolute, and its settings of data those of the finished store
    where one is given; the arguments are those of `config.parse`.

    Raises UserError for settings that do not exist, that contradict the store, and for values that they cannot have.
    """

    def settled(recipe: R, places: dict[str, str]) -> R:
        return settle(resolve_paths(recipe, in_job=connect.inside_job()), places)

    return config.parse(root, description=description, flags=flags, common=common, moved=moved, settle=settled)
