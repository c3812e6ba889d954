#!/usr/bin/env bash
# transformers 5.23.0: the length grouping of the Trainer sorts a small training set in quarters, not in 50 batches.
#
# `group_by_length` shuffles, cuts the order into pieces and sorts each piece by length. A piece has 50 batches, but at
# most a quarter of the batches there are. So the padding that it saves grows with the size of the set: a comparison on
# a few hundred examples makes it look much worse than it is on thousands of the same lengths.
#
# Here lengths are drawn from 10 to 255, and a batch of 16 is padded to its longest.
#
# Prints: examples 160: sorted by 32, padding 1.40 / 800: by 192, 1.08 / 12800: by 800, 1.02
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet transformers==5.23.0 torch==2.13.0 numpy
venv/bin/python - <<'PYTHON'
import torch
from transformers.trainer_pt_utils import get_length_grouped_indices

BATCH = 16


def grouped(examples: int) -> tuple[int, float]:
    """(examples that are sorted together; positions with padding over tokens)."""
    lengths = torch.randint(10, 256, (examples,), generator=torch.Generator().manual_seed(0)).tolist()
    order = get_length_grouped_indices(lengths, BATCH, generator=torch.Generator().manual_seed(1))
    ordered = [lengths[place] for place in order]
    rises = [place for place in range(1, examples - BATCH) if ordered[place] > ordered[place - 1]]
    padded = sum(max(ordered[first : first + BATCH]) * BATCH for first in range(0, examples, BATCH))
    return rises[1] - rises[0], padded / sum(lengths)


found = {examples: grouped(examples) for examples in (160, 800, 12800)}
for examples, (together, padding) in found.items():
    print(f"examples {examples}: sorted by {together}, padding {padding:.2f}")
assert {examples: together for examples, (together, _) in found.items()} == {160: 32, 800: 192, 12800: 800}
PYTHON
