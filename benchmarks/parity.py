"""Values of the authors' implementation, through every form of its checkpoints.

    python benchmarks/parity.py [--golden FOLDER] [--json FILE]

Largest difference from the stored values of each case; by default those in shared/ beside the checkout.
golden/model_parity.npz, with every form: logits, losses (of each position, and their mean), the stored gradients of
`infill`; the `mem_*` cases through the key-value cache. `nobp` has weights of its own, without a second position table.
Left out: `mask4d`, whose mask is not made of contexts and pieces.
golden/scoring.npz and scoring.json, with the stored weights, which all forms in fp32 hold: scores of answers and texts
(differences are relative where a score is beyond 1), and the logits behind each token of the greedy fillings, infinite
where another token is written. Left out: `classification`, whose heads come with fine-tuning, and
`cloze_multi/out/softmax0_*`, sums of raw logits.
"""

import argparse
import json
import math
import platform
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from parity_scoring import EOP, Arrays, Facts, Pair, all_scores, fillings, generations, next_token_logits

from glm_model import from_pretrained, save_pretrained
from glm_model.attention.backends import Backend
from glm_model.cache import Cache
from glm_model.model import GLM, Execution
from glm_model.saved.pretrained import save_authors

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
ONE_TABLE, GRADIENTS_OF, LEFT_OUT = "nobp", "infill", "mask4d"
# The authors' stored gradients: their name -> ours. Of larger tensors it is the first rows or columns.
GRADIENTS = {
    "transformer.final_layernorm.weight": "final_norm.weight",
    "transformer.final_layernorm.bias": "final_norm.bias",
    "transformer.layers.0.input_layernorm.weight": "layers.0.attention_norm.weight",
    "transformer.layers.0.attention.query_key_value.bias": "layers.0.qkv.bias",
    "transformer.layers.2.attention.dense.weight": "layers.2.attention_out.weight",
    "transformer.layers.3.mlp.dense_4h_to_h.bias": "layers.3.mlp_out.bias",
    "transformer.layers.1.mlp.dense_h_to_4h.bias": "layers.1.mlp_in.bias",
    "transformer.block_position_embeddings.weight[:8]": "block_position_embedding.weight",
    "transformer.position_embeddings.weight[:24]": "position_embedding.weight",
    "word_embeddings.weight[:,:4]": "token_embedding.weight",
}
KINDS = ("logits", "loss", "gradients", "scores")


class Row(NamedTuple):
    """A line of the table: the largest differences of a case, by kind, and what each may be."""

    case: str
    differences: dict[str, float]
    allowed: float


def main() -> None:
    options = _options()
    folder = Path(options.golden)
    golden, arrays = load(folder, "model_parity.npz"), load(folder, "scoring.npz")
    if golden is None or arrays is None:
        absent = "model_parity.npz" if golden is None else "scoring.npz"
        sys.exit(f"there is nothing to compare with: {folder} holds no {absent}")
    print(f"{'form':<28} {'case':<38}" + "".join(f" {kind:>9}" for kind in (*KINDS, "allowed")))
    values, beyond = {}, 0
    for form, row in rows(folder, golden, arrays):
        cells = [f"{row.differences[kind]:.1e}" if kind in row.differences else "" for kind in KINDS]
        print(f"{form:<28} {row.case:<38}" + "".join(f" {cell:>9}" for cell in (*cells, f"{row.allowed:.0e}")))
        values[f"{form}/{row.case}"] = worst = _worst(row.differences.values())
        beyond += not worst <= row.allowed
    if options.json:
        report = {"name": "parity", "machine": platform.processor() or platform.machine(), "values": values}
        Path(options.json).write_text(json.dumps({**report, "ratios": {}}, indent=2))
    if beyond:
        sys.exit(f"{beyond} cases are beyond what is allowed")


def load(folder: Path, name: str) -> Arrays | None:
    """A file of inputs and outputs of the authors' implementation; None where it is not."""
    if not (folder / name).exists():
        return None
    with np.load(folder / name) as file:
        return dict(file)


def rows(folder: Path, golden: Arrays, arrays: Arrays) -> Iterator[tuple[str, Row]]:
    """(form of the checkpoint, row) for every line."""
    for form, model in models(folder):
        limit = 2e-2 if "fp16" in form else 5e-5  # weights rounded to fp16 move the logits by 7e-3
        yield from ((form, Row(case, found, limit)) for case, found in model_differences(model, golden))
    form, one_table = "the stored weights", golden_model(golden, block_positions=False)
    yield form, Row(ONE_TABLE, _case_differences(one_table, golden, ONE_TABLE), 5e-5)
    facts = json.loads((folder / "scoring.json").read_text())
    yield from ((form, row) for row in scoring_rows(golden, arrays, facts))


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


def golden_model(golden: Arrays, *, block_positions: bool = True, eop_row: np.ndarray | None = None) -> GLM:
    """The authors' model from the stored weights; eop_row: another row of the embedding for [eop]."""
    state = {name[2:]: torch.from_numpy(value) for name, value in golden.items() if name.startswith("w/")}
    if not block_positions:
        del state["transformer.block_position_embeddings.weight"]
        name = "transformer.position_embeddings.weight"
        state[name] = torch.from_numpy(golden[f"w_nobp/{name}"])
    if eop_row is not None:
        state["word_embeddings.weight"] = state["word_embeddings.weight"].clone()
        state["word_embeddings.weight"][EOP] = torch.from_numpy(eop_row)
    return GLM.from_authors_state(state, heads=HEADS)


# -- golden/model_parity.npz -------------------------------------------------------------------------------------------


@torch.no_grad()
def model_differences(model: GLM, golden: Arrays) -> Iterator[tuple[str, dict[str, float]]]:
    """Cases of whole sequences, then the steps of one sequence through the key-value cache."""
    for case in CASES:
        yield case, _case_differences(model, golden, case)
    for case, found, wanted in cached_steps(model, golden, Cache(model.config, 1, 13)):
        yield case, {"logits": _largest(found, wanted)}


def _case_differences(model: GLM, golden: Arrays, case: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for kind, ours, theirs in whole_sequences(model, golden, case):
        found.setdefault(kind, []).append(_largest(ours, theirs))
    if case == GRADIENTS_OF:
        found["gradients"] = [_largest(ours, theirs) for _, ours, theirs in gradients(model, golden)]
    return {kind: _worst(several) for kind, several in found.items()}


def whole_sequences(model: GLM, golden: Arrays, case: str, backend: Backend | None = None) -> Iterator[Pair]:
    """`logits`, and where the case has labels `loss` twice: of every position, and the mean over the masked ones."""
    logits = model.logits(model.hidden(*case_inputs(golden, case), execution=Execution(backend))).detach()
    compared = logits[..., torch.from_numpy(golden["out/long/logits_cols"])] if case == "long" else logits
    yield Pair("logits", compared, golden[f"out/{case}/logits"])
    if f"out/{case}/loss" in golden:
        nll, mean = _losses(golden, case, logits)
        yield Pair("loss", nll, golden[f"out/{case}/ce"])
        yield Pair("loss", mean, golden[f"out/{case}/loss"])


@torch.enable_grad()
def gradients(model: GLM, golden: Arrays, backend: Backend | None = None) -> Iterator[Pair]:
    """Those of the mean loss that are stored, under our names."""
    logits = model.logits(model.hidden(*case_inputs(golden, GRADIENTS_OF), execution=Execution(backend)))
    parameters = dict(model.named_parameters())
    loss = _losses(golden, GRADIENTS_OF, logits)[1]
    found = torch.autograd.grad(loss, [parameters[name] for name in GRADIENTS.values()])
    for (theirs, ours), gradient in zip(GRADIENTS.items(), found, strict=True):
        wanted = golden[f"out/{GRADIENTS_OF}/grad/{theirs}"]
        yield Pair(ours, gradient[tuple(slice(size) for size in wanted.shape)], wanted)


@torch.no_grad()
def cached_steps(model: GLM, golden: Arrays, cache: Cache) -> Iterator[Pair]:
    """Logits of a context and of three tokens after it, one by one."""
    for case in CACHED_CASES:
        logits = model.logits(model.hidden(*case_inputs(golden, case)[:3], cache=cache))
        yield Pair(case, logits, golden[f"out/{case}/logits"])


def case_inputs(golden: Arrays, case: str) -> list[torch.Tensor]:
    """The five inputs of the model. The authors attend to padding, so a row is one segment."""
    names = ("input_ids", "position_ids", "attention_mask")
    tokens, positions, context_end = (torch.from_numpy(golden[f"in/{case}/{name}"]) for name in names)
    first, second = positions.unbind(1) if positions.ndim == 3 else (positions, torch.zeros_like(positions))
    return [tokens, first, second, torch.zeros_like(tokens), context_end[:, None].expand_as(tokens).contiguous()]


def _losses(golden: Arrays, case: str, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(cross-entropy of every position, mean over the masked ones)."""
    labels, loss_mask = (torch.from_numpy(golden[f"in/{case}/{name}"]) for name in ("labels", "loss_mask"))
    nll = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    return nll, (nll * loss_mask).sum() / loss_mask.sum()


# -- golden/scoring.npz and scoring.json -------------------------------------------------------------------------------


def scoring_rows(golden: Arrays, arrays: Arrays, facts: Facts) -> Iterator[Row]:
    """Scores may differ by 1e-4, and so may the logits of fillings, which are stored rounded to 1e-5."""
    model = golden_model(golden)
    for name, found, wanted in all_scores(model, arrays, facts):
        yield Row(name, {"scores": _largest(found, wanted, relative=True)}, 1e-4)
    name, found, wanted = next_token_logits(model, arrays)
    yield Row(name, {"logits": _largest(found, wanted)}, 5e-5)
    for name in generations(facts):
        other_end = golden_model(golden, eop_row=arrays["generation/eop_row"])
        differences = []
        for tokens, steps in fillings(other_end if name.startswith("eop row") else model, facts, name):
            differences += [_largest(*step[1:]) if tokens.found == tokens.wanted else math.inf for step in steps]
        yield Row(f"generation/{name.rpartition(', out')[0]}", {"logits": _worst(differences)}, 1e-4)


def _largest(found: Any, wanted: Any, *, relative: bool = False) -> float:
    """Largest difference; relative: to what is wanted, where that is beyond 1."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape
    scale = np.maximum(1.0, np.abs(wanted)) if relative else 1.0
    return float((np.abs(found - wanted) / scale).max())


def _worst(differences: Iterable[float]) -> float:
    """The largest; NaN, where there is one, which `max` may pass over."""
    return float(np.max(list(differences)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", default=str(GOLDEN))
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
