"""Training a tokenizer in a process of its own: the libraries that train hear no signal, and say nothing meanwhile.

Ctrl-C ends that process at once, and so does the end of this one, however that comes.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict

from glm_model.tokenizer import Tokenizer
from infra import children, storage
from pipelines.store.tokenizer_training import TokenizerTraining, check, draw_sample, fit

_LOOK_S = 0.1
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def train_apart(texts: Iterable[str], config: TokenizerTraining) -> Generator[float | Tokenizer, None, None]:
    """Yields the seconds that have passed, a few times a second, and then the tokenizer, that of `train`.

    Raises as `train`, and RuntimeError with what the process said where it ended without a tokenizer.
    """
    sample = draw_sample(texts, config)
    check(sample, config)
    with tempfile.TemporaryDirectory(prefix="glm-tokenizer-") as folder:
        storage.write_json(storage.join(folder, "job.json"), {"config": asdict(config), "sample": sample})
        with tempfile.TemporaryFile("w+") as said:
            # In a session of its own: Ctrl-C reaches this process, which ends that one.
            process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.store.tokenizer_process", folder, str(os.getpid())],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            try:
                yield from _wait(process)
            finally:
                children.end(process)
            made = storage.join(folder, "tokenizer.json")
            if not storage.exists(made):
                said.seek(0)
                raise RuntimeError(f"training the tokenizer ended with {process.returncode}: {said.read()[-2000:]}")
        tokenizer = Tokenizer(storage.read_bytes(made).decode())
    yield tokenizer


def _wait(process: "subprocess.Popen[bytes]") -> Iterator[float]:
    """The seconds that have passed, until the process has ended."""
    began_at = time.monotonic()
    while True:
        try:
            process.wait(_LOOK_S)
            return
        except subprocess.TimeoutExpired:
            yield time.monotonic() - began_at


def main(folder: str, parent: int) -> None:
    """What the process does: read the job in the folder, and write tokenizer.json there. It ends with its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        return
    job = storage.read_json(storage.join(folder, "job.json"))
    made = fit(job["sample"], TokenizerTraining(**job["config"]))
    storage.write_bytes(storage.join(folder, "tokenizer.json"), made.to_json().encode())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
