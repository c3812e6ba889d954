"""Law 14: logits, losses, gradients and cached steps of the authors' implementation (golden/model_parity.npz).

Every case that a prefix mask expresses, and the `mem_*` cases through the key-value cache. Case `mask4d` is left out:
its explicit [B, 1, T, T] mask is not of the form "context and causal pieces" that this model takes. What is computed,
and of which inputs, is in benchmarks/parity.py, which prints the differences.
"""

import pytest
import torch
from helpers import benchmark_modules

from glm_model.cache import Cache

parity = benchmark_modules.load("parity")


@pytest.fixture(scope="module")
def golden() -> dict:
    found = parity.load(parity.GOLDEN, "model_parity.npz")
    if found is None:
        pytest.skip("the authors' golden values are not here (model_parity.npz is absent)")
    return found


def assert_close(pair, what: str) -> None:
    torch.testing.assert_close(
        pair.found, torch.from_numpy(pair.wanted), rtol=0, atol=5e-5, msg=lambda text: f"{what}: {text}"
    )


def test_every_case_and_gradient_is_tested_here_or_left_out_above(golden):
    cases = {*parity.CASES, *parity.CACHED_CASES, parity.ONE_TABLE, parity.LEFT_OUT}
    assert {name.split("/")[1] for name in golden if name.startswith("out/")} == cases
    stored = [name.partition("/grad/") for name in golden if "/grad/" in name]
    assert {name for _, _, name in stored} == set(parity.GRADIENTS)
    assert {case for case, _, _ in stored} == {f"out/{parity.GRADIENTS_OF}"}


@pytest.mark.parametrize("backend", ["dense", "segments"])
@pytest.mark.parametrize("case", [*parity.CASES, parity.ONE_TABLE])
def test_logits_and_losses_of_the_authors(golden, case, backend):
    model = parity.golden_model(golden, block_positions=case != parity.ONE_TABLE)
    pairs = list(parity.whole_sequences(model, golden, case, backend))
    assert [pair.name for pair in pairs] == ["logits", *["loss"] * 2 * (f"in/{case}/labels" in golden)]
    for pair in pairs:
        assert_close(pair, pair.name)


@pytest.mark.parametrize("backend", ["dense", "segments"])
def test_gradients_of_the_authors(golden, backend):
    pairs = list(parity.gradients(parity.golden_model(golden), golden, backend))
    assert [pair.name for pair in pairs] == list(parity.GRADIENTS.values())
    for pair in pairs:
        assert_close(pair, pair.name)


def test_steps_with_memory_equal_the_key_value_cache(golden):
    model = parity.golden_model(golden)
    cache = Cache(model.config, 1, 13)
    pairs = list(parity.cached_steps(model, golden, cache))
    assert [pair.name for pair in pairs] == ["mem_prompt", "mem_step0", "mem_step1", "mem_step2"]
    for pair in pairs:
        assert_close(pair, pair.name)
    assert cache.lengths.tolist() == [13]
