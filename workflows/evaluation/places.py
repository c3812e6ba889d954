"""The places of an evaluation, made absolute, so that workers mean the same ones."""

from collections.abc import Mapping
from dataclasses import replace

from infra import storage
from infra.cluster import connect
from infra.errors import UserError
from workflows.evaluation.config import EvaluateConfig
from workflows.settings.places import check_database


def resolve_places(options: EvaluateConfig) -> EvaluateConfig:
    """Raises UserError for relative paths inside a Ray job, whose folder vanishes with it."""
    given = {"to": options.to, "data": options.data, "task.data": options.task.data}
    given |= {f"models[{number}]": model for number, model in enumerate(options.models)}
    if not options.task.data:
        given |= {f"task.splits.{name}": url for name, url in options.task.splits.items()}
    check_reachable(given)
    check_database(options.tracking, in_job=connect.inside_job())
    task = replace(options.task, data=options.task.data and storage.absolute(options.task.data))
    return replace(
        options, to=storage.absolute(options.to), task=task, data=options.data and storage.absolute(options.data)
    )


def check_reachable(given: Mapping[str, str | None]) -> None:
    """given: setting -> its place. Raises UserError for relative paths inside a Ray job, whose folder vanishes."""
    if not connect.inside_job():
        return
    for key, value in given.items():
        if value and storage.absolute(value) != value:
            raise UserError(
                f"{key}={value} is a relative path",
                why="inside a Ray job it would lie in the job's own folder, which vanishes with the job",
                try_="use an absolute path or URL that all nodes can reach",
            )
