"""Ask `peers.py`, which runs in an interpreter that has what we compare with (`peers.txt`)."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_SCRIPT = Path(__file__).with_name("peers.py")


def ask(python: str, *arguments: str) -> dict[str, Any]:
    """What it prints, parsed. Ends the program where it fails."""
    done = subprocess.run([python, str(_SCRIPT), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: {python} {_SCRIPT.name} {' '.join(arguments)} failed\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
