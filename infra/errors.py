"""Errors for the user: what happened, why, what to try; and an exit code for each kind."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn


class UserError(Exception):
    """Usage or configuration: something the user can put right. Printed without a stack trace; survives pickling."""

    exit_code = 2
    kind = "usage"

    def __init__(self, message: str, *, why: str | None = None, try_: str | None = None):
        super().__init__(message)
        self.message, self.why, self.try_ = message, why, try_

    def __str__(self) -> str:
        parts = (("why", self.why), ("try", self.try_))
        lines = [f"  {label}: {text}".replace("\n", "\n       ") for label, text in parts if text]
        return "\n".join([self.message, *lines])

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception pickles its positional arguments only; the keyword ones would be lost between Ray's processes.
        return _restore, (type(self), self.args, dict(self.__dict__))


class DataError(UserError):
    """Input data is missing, unfinished, unreadable, or differs from its manifest."""

    exit_code = 3
    kind = "data"


class DivergedError(UserError):
    """A loss, a gradient or the weights of a model are not finite."""

    exit_code = 4
    kind = "diverged"


class InfrastructureError(UserError):
    """A storage, tracking server, driver package or cluster is missing, not writable, or too small."""

    exit_code = 5
    kind = "infrastructure"


class Interrupted(UserError):
    """A stop from outside, after the work so far was saved."""

    exit_code = 130
    kind = "interrupted"


def kind_of(code: int) -> str:
    """What kind of error a command ended with that exited with this code."""
    kinds = (UserError, DataError, DivergedError, InfrastructureError, Interrupted)
    return next((kind.kind for kind in kinds if kind.exit_code == code), "unexpected")


def quiet_until_main(name: str) -> None:
    """Let Ctrl-C end a script without a stack trace while it loads what it needs for `run_script`. name: its __name__;
    where the script is imported, and where signals are ignored, nothing changes.
    """

    def end(number: int, frame: Any) -> None:
        _say_interrupted()
        os._exit(Interrupted.exit_code)

    if name == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end)


def run_main(main: Callable[[], None]) -> NoReturn:
    """Run a command and exit: with 0, or with the code of its error, the cause first and the code in the last line.

    The code is printed because `ray job submit` turns every failure into 1. SIGTERM ends the command as Ctrl-C does,
    unless the command handles it.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(_code_of(main))


def run_script(main: Callable[[], None]) -> NoReturn:
    """`run_main` of a script, which ends this process: nothing that libraries leave behind changes the exit code."""
    try:
        run_main(main)
    except SystemExit as stopped:
        if not isinstance(stopped.code, int):
            raise
        _end(stopped.code)


def _code_of(main: Callable[[], None]) -> int:
    """Run a command; its exit code, once its error is printed."""
    try:
        main()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # `timeout -s INT` sends two
        _say_interrupted()
        return Interrupted.exit_code
    except Exception as exc:
        if _is_interrupt(exc):  # of a library that was loading
            _say_interrupted()
            return Interrupted.exit_code
        cause = root_cause(exc)
        if isinstance(cause, UserError):
            print(f"error: {cause}", file=sys.stderr)
            _say_code(cause.exit_code, cause.kind)
            return cause.exit_code
        import traceback

        print(f"error: {type(cause).__name__}: {cause}{_place(cause)}\n", file=sys.stderr)
        traceback.print_exception(exc, file=sys.stderr)
        _say_code(1, "unexpected")
        return 1
    return 0


def _end(code: int) -> NoReturn:
    """End this process as Python does, but for taking the interpreter apart: Ray's threads, which still run then, crash
    now and then, and their signal would stand for our code (Ray 2.60, after a node that was joined had died).
    `multiprocessing` ends its processes so, too.
    """
    for part in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]  # waits for threads first
        with contextlib.suppress(KeyboardInterrupt):
            part()
    try:
        if sys.stdout is not None:  # whoever began this may have closed it
            sys.stdout.flush()
    except BrokenPipeError:
        pass  # who read it has seen enough
    except OSError as error:
        print(f"error: the output is not complete: {error}", file=sys.stderr, flush=True)
        if not code:  # another error has told its own
            code = InfrastructureError.exit_code
            _say_code(code, InfrastructureError.kind)
    os._exit(code)


def root_cause(exc: BaseException) -> BaseException:
    """The UserError inside `exc` if there is one, else the innermost cause.

    Looks through the wrappers that Ray puts around errors of other processes: `cause` (RayTaskError),
    `worker_failures` (Ray Train's WorkerGroupError), `controller_failure`, and Python's own `__cause__`.
    """
    chain = list(_walk(exc, set()))
    # A RayTaskError is made a subclass of the class of its cause: the wrapper is an instance of UserError too, but
    # its text is a stack trace. Only the text of an exception that wraps nothing is meant for the user.
    own = [e for e in chain if isinstance(e, UserError) and not isinstance(vars(e).get("cause"), BaseException)]
    if own:
        return own[0]
    # The walk is depth first: up to the first exception that wraps nothing it follows one chain inwards.
    return next((e for e in chain if not _inner(e)), exc)


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: `; did you mean 'lr'? (have: betas, lr)`."""
    import difflib

    have = sorted({str(k) for k in known})
    by_lowercase = {k.lower(): k for k in have}
    close = difflib.get_close_matches(str(name).lower(), by_lowercase, n=1)
    guess = f"; did you mean {by_lowercase[close[0]]!r}?" if close else ""
    return f"{guess} (have: {', '.join(have)})" if have else ""


def nearest_path(path: str) -> str | None:
    """Where nothing is at this path: the path beside it whose name is much like its own."""
    import difflib

    folder, name = os.path.split(path)
    try:
        close = difflib.get_close_matches(name, os.listdir(folder or "."), n=1, cutoff=0.8)
    except OSError:
        return None
    return os.path.join(folder, close[0]) if close else None


def _walk(exc: BaseException, seen: set[int]) -> Iterator[BaseException]:
    if id(exc) in seen:
        return
    seen.add(id(exc))
    yield exc
    for inner in _inner(exc):
        yield from _walk(inner, seen)


def _inner(exc: BaseException) -> list[BaseException]:
    """The exceptions that `exc` wraps, nearest first."""
    # vars(), not getattr(): Ray's wrapper forwards unknown attributes to its cause, which would hide one level.
    attributes = vars(exc)
    failures = attributes.get("worker_failures")
    ordered = [failures[rank] for rank in sorted(failures)] if isinstance(failures, dict) else []
    found = [attributes.get("cause"), *ordered, attributes.get("controller_failure"), exc.__cause__]
    return [e for e in found if isinstance(e, BaseException)]


def _place(exc: BaseException) -> str:
    import traceback

    frames = traceback.extract_tb(exc.__traceback__)
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


def _restore(cls: type[UserError], args: tuple[Any, ...], state: dict[str, Any]) -> UserError:
    exc = cls.__new__(cls, *args)
    exc.__dict__.update(state)
    return exc


def _is_interrupt(exc: BaseException) -> bool:
    """Whether an error that is not ours came up while Ctrl-C was handled."""
    before = exc.__cause__ or exc.__context__
    if isinstance(exc, UserError) or before is None:
        return False
    return isinstance(before, KeyboardInterrupt) or _is_interrupt(before)


def _say_interrupted() -> None:
    print(f"error: interrupted\nexit {Interrupted.exit_code} ({Interrupted.kind})", file=sys.stderr, flush=True)


def _say_code(code: int, kind: str) -> None:
    print(f"exit {code} ({kind})", file=sys.stderr, flush=True)
