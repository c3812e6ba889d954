"""Law 14: logits, losses, gradients and cached steps of the authors' implementation (golden/model_parity.npz).

Every case that a prefix mask expresses, and the `mem_*` cases through the key-value cache. Case `mask4d` is left out:
its explicit [B, 1, T, T] mask is not of the form "context and causal pieces" that this model takes.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from glm_model.model import GLM, Cache
from glm_model.pretrained import from_authors_state

GOLDEN = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference" / "golden"
PREFIX_CASES = (
    "sep_batch",
    "sep_edges",
    "infill",
    "scalar_sep_b1",
    "scalar_sep_b2",
    "no_block_position",
    "nobp",
    "long",
)
# The authors' stored gradients: their name -> ours.
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


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    path = GOLDEN / "model_parity.npz"
    if not path.exists():
        pytest.skip(f"the authors' golden values are not here ({path.name} is absent)")
    with np.load(path) as file:
        return dict(file)


def authors_model(golden: dict[str, np.ndarray], *, block_positions: bool = True) -> GLM:
    state = {name[2:]: torch.from_numpy(value) for name, value in golden.items() if name.startswith("w/")}
    if not block_positions:
        del state["transformer.block_position_embeddings.weight"]
        name = "transformer.position_embeddings.weight"
        state[name] = torch.from_numpy(golden[f"w_nobp/{name}"])
    return from_authors_state(state, heads=4)


def case_inputs(golden: dict[str, np.ndarray], case: str) -> list[torch.Tensor]:
    """The five inputs of `hidden`. The authors attend to padding, so a row is one segment."""
    tokens, positions, sep = (
        torch.from_numpy(golden[f"in/{case}/{name}"]) for name in ("input_ids", "position_ids", "attention_mask")
    )
    first, second = positions.unbind(1) if positions.ndim == 3 else (positions, torch.zeros_like(positions))
    return [tokens, first, second, torch.zeros_like(tokens), sep[:, None].expand_as(tokens).contiguous()]


def losses(golden: dict[str, np.ndarray], case: str, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(cross-entropy of every position, mean over the masked ones)."""
    labels, loss_mask = (torch.from_numpy(golden[f"in/{case}/{name}"]) for name in ("labels", "loss_mask"))
    nll = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view_as(labels)
    return nll, (nll * loss_mask).sum() / loss_mask.sum()


@pytest.mark.parametrize("backend", ["dense", "segments"])
@pytest.mark.parametrize("case", PREFIX_CASES)
def test_logits_and_losses_of_the_authors(golden, case, backend):
    model = authors_model(golden, block_positions=case != "nobp")
    logits = model.logits(model.hidden(*case_inputs(golden, case), backend=backend))
    compared = logits[..., torch.from_numpy(golden["out/long/logits_cols"])] if case == "long" else logits
    torch.testing.assert_close(compared, torch.from_numpy(golden[f"out/{case}/logits"]), rtol=0, atol=5e-5)
    if f"out/{case}/loss" in golden:
        nll, loss = losses(golden, case, logits)
        torch.testing.assert_close(nll, torch.from_numpy(golden[f"out/{case}/ce"]), rtol=0, atol=5e-5)
        assert loss.item() == pytest.approx(float(golden[f"out/{case}/loss"]), abs=5e-5)


@pytest.mark.parametrize("backend", ["dense", "segments"])
def test_gradients_of_the_authors(golden, backend):
    model = authors_model(golden)
    _, loss = losses(golden, "infill", model.logits(model.hidden(*case_inputs(golden, "infill"), backend=backend)))
    loss.backward()
    given = dict(model.named_parameters())
    for theirs, ours in GRADIENTS.items():
        expected = torch.from_numpy(golden[f"out/infill/grad/{theirs}"])
        gradient = given[ours].grad[tuple(slice(n) for n in expected.shape)]
        torch.testing.assert_close(gradient, expected, rtol=0, atol=5e-5, msg=ours)


def test_steps_with_memory_equal_the_key_value_cache(golden):
    model = authors_model(golden)
    cache = Cache(model, 1, 13)
    for case in ("mem_prompt", "mem_step0", "mem_step1", "mem_step2"):
        logits = model.logits(model.hidden(*case_inputs(golden, case)[:3], cache=cache))
        torch.testing.assert_close(logits, torch.from_numpy(golden[f"out/{case}/logits"]), rtol=0, atol=5e-5)
    assert cache.length == 13
