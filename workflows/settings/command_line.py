"""The command line of a script that works on a recipe."""

from infra import config
from infra.cluster import connect
from infra.config import Parsed
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
    """The recipe that the command line gives, its paths absolute; the arguments are those of `config.parse`.

    Raises UserError for settings that do not exist and for values that they cannot have.
    """
    parsed = config.parse(root, description=description, flags=flags, common=common, moved=moved)
    return parsed._replace(config=resolve_paths(parsed.config, in_job=connect.inside_job()))
