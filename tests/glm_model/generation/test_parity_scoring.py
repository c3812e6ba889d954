"""Law 14 for scores and generation: every case of the authors' scoring.npz and scoring.json, but for these two.

`classification/*`: classifier heads come with fine-tuning. `cloze_multi/out/softmax0_*`: sums of raw logits, which are
no log-probabilities, so that nothing here computes them. What is computed, and of which inputs, is in
benchmarks/parity_scoring.py; benchmarks/parity.py prints the differences.
"""

import json

import numpy as np
import pytest
import torch
from helpers import benchmark_modules

from glm_model.generation.scoring import Scored
from glm_model.model import GLM

parity, scoring = benchmark_modules.load("parity"), benchmark_modules.load("parity_scoring")
LANGUAGE_MODEL = [
    "doc1_bi_overlap8",
    "doc1_bi_overlap_none",
    "doc3_bi_overlap16",
    "doc1_bi_overlap8_gMASK",
    "doc1_uni_overlap8",
    "doc1_uni_overlap_none",
    "doc3_uni_overlap16",
    "doc1_uni_overlap8_gMASK",
]
GENERATIONS = {
    "plain weights, out_seq_length 12": 5,
    "eop row replaced, out_seq_length 12": 5,
    "eop row replaced, task_mask, out_seq_length 10": 3,
}


def load(name: str) -> dict[str, np.ndarray]:
    found = parity.load(parity.GOLDEN, name)
    if found is None:
        pytest.skip(f"the authors' golden values are not here ({name} is absent)")
    return found


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return load("scoring.npz")


@pytest.fixture(scope="module")
def facts(arrays) -> dict:
    return json.loads((parity.GOLDEN / "scoring.json").read_text())


@pytest.fixture(scope="module")
def model() -> GLM:
    return parity.golden_model(load("model_parity.npz"))


def close(expected):
    return pytest.approx(np.asarray(expected), rel=1e-4, abs=1e-4)


def test_every_case_is_tested_here_or_named_above(arrays, facts):
    cases = {"cloze_multi", "cloze_fast", "cloze_single", "multichoice_bi", "multichoice_uni", "generation"}
    assert {name.split("/")[0] for name in arrays} == cases | {"lm", "lambada", "classification"}
    assert set(facts["language_model"]) == set(LANGUAGE_MODEL)
    assert scoring.generations(facts) == GENERATIONS
    assert set(facts["lambada"]) == set(scoring.DIRECTIONS)


def test_cloze_scores_of_several_tokens_and_of_single_ones(model, arrays):
    pairs = list(scoring.cloze_scores(model, arrays))
    assert [pair.name for pair in pairs] == ["cloze_multi", "cloze_fast", "cloze_single"]
    for name, found, wanted in pairs:
        assert found == close(wanted), name
    assert [pair.wanted.shape for pair in pairs] == [(3, 2, 3), (2, 3), (2, 2, 3)]


def test_logits_of_every_token_at_a_mask(model, arrays):
    _, found, wanted = scoring.next_token_logits(model, arrays)
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=0, atol=5e-5)


@pytest.mark.parametrize("direction", scoring.DIRECTIONS)
def test_zero_shot_multiple_choice(model, arrays, direction):
    _, found, wanted = scoring.choice_scores(model, arrays, direction)
    assert found == close(wanted)
    assert wanted.shape == (2, 2, 3)


@pytest.mark.parametrize("name", LANGUAGE_MODEL)
def test_language_model(model, arrays, facts, name):
    """Windows are the authors' token by token, and so are likelihoods, of windows and in total."""
    lengths = [len(document) for document in scoring.documents_of(arrays, facts, name)]
    assert lengths == facts["language_model"][name]["document_lengths"]
    documents = scoring.text_pieces(arrays, facts, name)
    windows = [window for document in documents for window in document]
    assert len(windows) == facts["language_model"][name]["n_windows"]
    for index, window in enumerate(windows):
        assert_the_authors_window(window, arrays, f"lm/{name}/window{index}")
    _, found, wanted = scoring.text_scores(model, documents, facts, name)
    assert found == close(wanted)


def assert_the_authors_window(window: Scored, arrays: dict[str, np.ndarray], prefix: str) -> None:
    """But for the last slot, which predicts our [eop]: it is not scored, and the authors' windows do not have it."""
    example, counted = window
    size = len(example.tokens) - 1
    fields = ("text", "position_id", "loss_mask", "target")
    theirs = {field: arrays[f"{prefix}/{field}"] for field in fields}
    assert example.tokens[:-1].tolist() == theirs["text"][:size].tolist()
    assert counted[:-1].astype(int).tolist() == theirs["loss_mask"][:size].tolist()
    assert not counted[-1]
    assert example.position_ids[:-1].tolist() == theirs["position_id"][0, :size].tolist()
    assert example.block_position_ids[:-1].tolist() == theirs["position_id"][1, :size].tolist()
    assert example.targets[counted].tolist() == theirs["target"][theirs["loss_mask"] == 1].tolist()


@pytest.mark.parametrize("direction", scoring.DIRECTIONS)
def test_lambada(model, arrays, facts, direction):
    _, found, wanted = scoring.last_word_scores(model, arrays, facts, direction)
    assert found == close(wanted)
    assert len(found) == 2 * len(facts["lambada"][direction]["texts"]) + 1


@pytest.mark.parametrize("name", GENERATIONS)
def test_greedy_filling_follows_the_authors_token_by_token(arrays, facts, name):
    """All texts of a case in one ragged batch; then the logits behind each choice, a text at a time."""
    eop_row = arrays["generation/eop_row"] if name.startswith("eop row replaced") else None
    model = parity.golden_model(load("model_parity.npz"), eop_row=eop_row)
    texts = list(scoring.fillings(model, facts, name))
    assert len(texts) == GENERATIONS[name]
    for tokens, steps in texts:
        assert tokens.found == tokens.wanted
        assert len(steps) >= len(tokens.wanted)
        for step in steps:
            assert step.found.numpy() == pytest.approx(np.array(step.wanted), abs=1e-4)
