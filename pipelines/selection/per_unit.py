"""What selections need of each unit of text and is made once for all of them: a file per unit, in a folder."""

from dataclasses import dataclass

from infra import storage
from pipelines.corpus.records import Unit


@dataclass(frozen=True)
class UnitJob:
    """Make one unit's file. unit: the unit's path; out: URL of the file."""

    unit: str
    out: str


def file_of(folder: str, unit: str) -> str:
    """URL of a unit's file in the folder."""
    return storage.join(folder, f"{unit}.parquet")


def missing(units: list[Unit], folder: str) -> list[UnitJob]:
    """Jobs for the units that have no file in the folder yet."""
    there = {info.path for info in storage.list_files(folder)} if storage.exists(folder) else set()
    return [UnitJob(unit.path, file_of(folder, unit.path)) for unit in units if f"{unit.path}.parquet" not in there]
