"""A Ray that serves jobs, on ports and in a folder of its own, as `ray start --head` makes it."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

PORTS = {
    "port": 26380,
    "ray-client-server-port": 26381,
    "dashboard-port": 26382,
    "dashboard-agent-listen-port": 26383,
    "metrics-export-port": 26384,
}
ADDRESS = f"http://127.0.0.1:{PORTS['dashboard-port']}"
"""What jobs are submitted to, as RAY_API_SERVER_ADDRESS."""
_OF_THE_SHELL = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def environment(root: Path, home: Path) -> dict[str, str]:
    """This interpreter as `python`, the code of `root`, a home of its own, and the Ray that serves jobs."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"PATH": path, "PYTHONPATH": str(root), "NO_COLOR": "1", "HOME": str(home), "RAY_API_SERVER_ADDRESS": ADDRESS}
    return {name: value for name, value in os.environ.items() if name not in _OF_THE_SHELL} | own


def start_options(folder: Path) -> str:
    """For `ray start --head`."""
    options = " ".join(f"--{name}={port}" for name, port in PORTS.items())
    return f"{options} --temp-dir={folder} --num-cpus=4 --object-store-memory=300000000"


@contextlib.contextmanager
def ray_folder(name: str) -> Iterator[Path]:
    """A folder for `ray start`; what that left behind ends with the `with`, known by the folder and our ports."""
    folder = Path("/tmp") / f"glm-{name}-{os.getpid()}"  # short: Ray's sockets allow about 100 characters
    try:
        yield folder
    finally:
        marks = (str(folder), f"--port={PORTS['ray-client-server-port']}")
        lines = ((process, " ".join(process.info["cmdline"] or [])) for process in psutil.process_iter(["cmdline"]))
        ours = [process for process, line in lines if any(mark in line for mark in marks)]
        for process in ours:
            process.terminate()
        for process in psutil.wait_procs(ours, timeout=10)[1]:
            process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def checkout(target: Path) -> Path:
    """What git would give to a new user, as the files stand now. Raises LookupError where this is not a repository."""
    root = Path(__file__).resolve().parents[2]
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=root, capture_output=True, text=True)
    if done.returncode:
        raise LookupError("the checkout is not a git repository: what belongs to it is unknown")
    for name in filter(None, done.stdout.split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    return target
