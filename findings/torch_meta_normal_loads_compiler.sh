#!/usr/bin/env bash
# torch 2.13.0: to make a module without values may load torch's compiler and sympy, a second of CPU time.
#
# Under torch.device("meta") a module has shapes alone, so it is expected to be made in no time, whatever its kind. That
# holds for nn.Linear and nn.LayerNorm, whose weights are drawn by uniform_ or filled. nn.Embedding draws its own by
# normal_, which for a meta tensor is Python (torch._refs) behind a wrapper that imports torch._dynamo at its first call:
# 1.0 to 1.3 CPU seconds for a table of 4 x 4 in each process that loads a model this way. On the
# CPU the same layer imports nothing. Tensor.exponential_ does the same, torch.randn imports sympy alone.
#
# Seen (whether torch._dynamo and sympy were imported):
#   meta nn.Linear (False, False)   meta nn.Embedding (True, True)      cpu nn.Embedding (False, False)
#   meta uniform_ (False, False)    meta exponential_ (True, True)      meta torch.randn (False, True)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.3.5
venv/bin/python - <<'PYTHON'
import subprocess
import sys


def imported(device: str, made: str) -> tuple[bool, bool]:
    code = (
        f"import sys, torch\nwith torch.device({device!r}):\n    {made}\n"
        "print([name in sys.modules for name in ('torch._dynamo', 'sympy')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return tuple(word == "True" for word in done.stdout.strip("[]\n").split(", "))


found = {
    (device, made): imported(device, made)
    for device, made in [
        ("meta", "torch.nn.Linear(4, 4)"),
        ("meta", "torch.nn.Embedding(4, 4)"),
        ("cpu", "torch.nn.Embedding(4, 4)"),
        ("meta", "torch.empty(4, 4).uniform_()"),
        ("meta", "torch.empty(4, 4).exponential_()"),
        ("meta", "torch.randn(4, 4)"),
    ]
}
print(found)
assert list(found.values()) == [
    (False, False), (True, True), (False, False), (False, False), (True, True), (False, True),
]
PYTHON
