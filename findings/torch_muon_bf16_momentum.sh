#!/usr/bin/env bash
# torch 2.13.0: torch.optim.Muon(nesterov=False) overwrites its own momentum where the parameters are bfloat16.
#
# Two guesses fail. The documentation writes the momentum as a sum, B = mu B + G; it is a mean, B = mu B + (1 - mu) G.
# And the orthogonalisation is expected to work on a copy: with nesterov=False the update is the momentum buffer itself,
# `.bfloat16()` of a bfloat16 tensor is that same tensor, and the division by its norm happens in place. So after a step
# the buffer of bfloat16 parameters is the normalised one, that of float32 parameters the mean. With nesterov=True, the
# default, the update is a tensor of its own and both agree.
#
# Seen, for a gradient of 8 on the diagonal of a 4 x 4 matrix, momentum 0.5, after one step from 0 (the mean is 4):
#   float32, nesterov False: 4.0    bfloat16, nesterov False: 0.5
#   float32, nesterov True:  4.0    bfloat16, nesterov True:  4.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet torch==2.13.0 numpy==2.3.5
venv/bin/python - <<'PYTHON'
import torch


def momentum(dtype: torch.dtype, nesterov: bool) -> float:
    p = torch.nn.Parameter(torch.zeros(4, 4, dtype=dtype))
    optimizer = torch.optim.Muon([p], lr=0.1, momentum=0.5, weight_decay=0, nesterov=nesterov)
    p.grad = 8 * torch.eye(4, dtype=dtype)
    optimizer.step()
    return optimizer.state[p]["momentum_buffer"][0, 0].item()


found = {(name, nesterov): momentum(getattr(torch, name), nesterov)
         for name in ("float32", "bfloat16") for nesterov in (False, True)}
print(found)
assert found == {
    ("float32", False): 4.0, ("float32", True): 4.0, ("bfloat16", False): 0.5, ("bfloat16", True): 4.0,
}
PYTHON
