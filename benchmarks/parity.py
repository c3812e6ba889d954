"""Logits and losses of the authors' implementation, through every form of its checkpoints.

    python benchmarks/parity.py [--golden FOLDER] [--json FILE]

Largest difference from the stored values of each case (golden/model_parity.npz; by default in shared/ beside the
checkout). Left out: `nobp`, which has weights of its own, and `mask4d`, whose mask is not made of contexts and pieces.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from glm_model.model import GLM, Cache
from glm_model.pretrained import from_pretrained, save_authors, save_pretrained

GOLDEN = Path(__file__).resolve().parents[1] / ".." / "shared" / "reference" / "golden"
HEADS = 4
FORMS = {
    "fp32, one rank": "thudm_ckpt",
    "fp32, two ranks": "thudm_ckpt_MP2",
    "fp16, DeepSpeed": "thudm_ckpt_ds_fp16",
    "pytorch_model.bin": "thudm_ckpt/1234/pytorch_model.bin",
}
CASES = ("sep_batch", "sep_edges", "infill", "scalar_sep_b1", "scalar_sep_b2", "no_block_position", "long")
CACHED_CASES = ("mem_prompt", "mem_step0", "mem_step1", "mem_step2")


class Difference(NamedTuple):
    """Largest absolute difference over a case; loss: of every position's cross-entropy and their mean, None if the
    case has none.
    """

    case: str
    logits: float
    loss: float | None


def main() -> None:
    options = _options()
    golden = load(Path(options.golden))
    if golden is None:
        sys.exit(f"there is nothing to compare with: {options.golden} holds no model_parity.npz")
    print(f"{'form':<28} {'case':<18} {'logits':>9} {'loss':>9} {'allowed':>9}")
    values, beyond = {}, 0
    for form, model in models(Path(options.golden)):
        limit = allowed(form)
        for case, logits, loss in differences(model, golden):
            print(f"{form:<28} {case:<18} {logits:9.1e} {'' if loss is None else f'{loss:9.1e}':>9} {limit:9.0e}")
            beyond += max(logits, loss or 0) > limit
            values[f"{form}/{case}"] = max(logits, loss or 0)
    if options.json:
        report = {"name": "parity", "machine": platform.processor() or platform.machine(), "values": values}
        Path(options.json).write_text(json.dumps({**report, "ratios": {}}, indent=2))
    if beyond:
        sys.exit(f"{beyond} cases are beyond what is allowed")


def load(folder: Path) -> dict[str, np.ndarray] | None:
    """Inputs and outputs of the authors' implementation; None where they are not."""
    path = folder / "model_parity.npz"
    if not path.exists():
        return None
    with np.load(path) as file:
        return dict(file)


def allowed(form: str) -> float:
    """Weights rounded to fp16 move the logits by 7e-3."""
    return 2e-2 if "fp16" in form else 5e-5


def models(folder: Path) -> Iterator[tuple[str, GLM]]:
    """Every form of the checkpoint, and the first one saved in both of ours and loaded again."""
    for form, path in FORMS.items():
        yield form, from_pretrained(str(folder / path), heads=HEADS)
    model = from_pretrained(str(folder / FORMS["fp32, one rank"]), heads=HEADS)
    for form, save in {
        "model.safetensors, exported": save_pretrained,
        "pytorch_model.bin, exported": save_authors,
    }.items():
        with tempfile.TemporaryDirectory() as exported:
            save(model, exported)
            yield form, from_pretrained(exported)


@torch.no_grad()
def differences(model: GLM, golden: dict[str, np.ndarray]) -> Iterator[Difference]:
    """Cases of whole sequences, then the steps of one sequence through the key-value cache."""
    for case in CASES:
        logits = model(*_inputs(golden, case))
        compared = logits[..., torch.from_numpy(golden["out/long/logits_cols"])] if case == "long" else logits
        loss = None
        if f"out/{case}/loss" in golden:
            labels, loss_mask = (torch.from_numpy(golden[f"in/{case}/{name}"]) for name in ("labels", "loss_mask"))
            nll = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
            mean = (nll * loss_mask).sum() / loss_mask.sum()
            loss = max(_largest(nll, golden[f"out/{case}/ce"]), _largest(mean, golden[f"out/{case}/loss"]))
        yield Difference(case, _largest(compared, golden[f"out/{case}/logits"]), loss)
    cache = Cache(model, 1, 13)
    for case in CACHED_CASES:
        logits = model.logits(model.hidden(*_inputs(golden, case)[:3], cache=cache))
        yield Difference(case, _largest(logits, golden[f"out/{case}/logits"]), None)


def _inputs(golden: dict[str, np.ndarray], case: str) -> list[torch.Tensor]:
    """The five inputs of the model. The authors attend to padding, so a row is one segment."""
    names = ("input_ids", "position_ids", "attention_mask")
    tokens, positions, context_end = (torch.from_numpy(golden[f"in/{case}/{name}"]) for name in names)
    first, second = positions.unbind(1)
    return [tokens, first, second, torch.zeros_like(tokens), context_end[:, None].expand_as(tokens).contiguous()]


def _largest(found: torch.Tensor, wanted: np.ndarray) -> float:
    return (found - torch.from_numpy(np.asarray(wanted))).abs().max().item()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", default=str(GOLDEN))
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
