"""How MLflow is told what a run is, how it is, and what to do with it: its note, its tag `glm.status`, its end."""

import sys
from typing import Literal, NamedTuple

from infra import commands, tracking
from infra.errors import Interrupted, UserError
from infra.tracking import RunHandle
from infra.tracking.mlflow_client import first_line, without_password

Status = Literal["running", "finished", "interrupted", "failed"]


class Subject(NamedTuple):
    """A run, for its note; all are Markdown."""

    what: str
    """Without its stop."""
    purpose: str
    """What the command of a finished run is for."""
    command: str
    places: str
    """Where its data and its folder are."""


def note(subject: Subject, status: Status, told: str) -> str:
    """The note, in Markdown. told: how the run is, as half a sentence."""
    purpose, command = subject.purpose, subject.command
    if status != "finished":
        purpose, command = "The same command continues it", commands.again(sys.argv)
    # The UI shows the first lines until it is asked for more: the command has to be among them.
    first = f"{subject.what}. **{status.capitalize()}**: {told}. {purpose}:"
    return without_password(f"{first}\n\n```\n{command}\n```\n\n{subject.places}")


def describe(handle: RunHandle, subject: Subject, status: Status, told: str, *, where: str = "") -> None:
    """Say in the entry's note and in its tag `glm.status` how the run is, and what can be done with it."""
    tracking.set_note(handle, note(subject, status, told), {"glm.status": f"{status}{where}"})


def describe_running(handle: RunHandle, subject: Subject) -> None:
    """What is told of a run from its beginning on."""
    describe(handle, subject, "running", "MLflow does not hear of it when the process of a run is killed")


def close_broken(handle: RunHandle, subject: Subject, error: BaseException, *, step: int, steps: int) -> None:
    """Close the entry of a run that did not come to its end. step: that of its last checkpoint; steps: its length."""
    status: Status = "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
    told = error.message if isinstance(error, UserError) else first_line(error)
    told = "stopped at once" if isinstance(error, KeyboardInterrupt) else told
    describe(handle, subject, status, told, where=f" at {step:,}/{steps:,} steps")
    tracking.finish(handle, status)
