"""Law 14 for scores and generation: every case of the authors' scoring.npz and scoring.json, but for these two.

`classification/*`: classifier heads come with fine-tuning. `cloze_multi/out/softmax0_*`: sums of raw logits, which are
no log-probabilities, so that nothing here computes them.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from glm_model import layout
from glm_model.cache import Cache
from glm_model.decoding import Decoding
from glm_model.generate import fill_tokens
from glm_model.model import GLM
from glm_model.pretrained import from_authors_state
from glm_model.reader import Reader, piece
from glm_model.scoring import score_pieces, score_text, score_tokens, text_windows

GOLDEN = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference" / "golden"
CLS, MASK, SMASK, GMASK, SOP, EOP, EOS = 1, 2, 993, 992, 990, 991, 0
MARKS = layout.Marks(sop=SOP, eop=EOP, pad=0)
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


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return load("scoring.npz")


@pytest.fixture(scope="module")
def facts(arrays) -> dict:
    return json.loads((GOLDEN / "scoring.json").read_text())


@pytest.fixture(scope="module")
def model() -> GLM:
    return authors_model()


def load(name: str) -> dict[str, np.ndarray]:
    if not (GOLDEN / name).exists():
        pytest.skip(f"the authors' golden values are not here ({name} is absent)")
    with np.load(GOLDEN / name) as file:
        return dict(file)


def authors_model(eop_row: np.ndarray | None = None) -> GLM:
    weights = {name[2:]: torch.from_numpy(x) for name, x in load("model_parity.npz").items() if name.startswith("w/")}
    if eop_row is not None:
        weights["word_embeddings.weight"][EOP] = torch.from_numpy(eop_row)
    return from_authors_state(weights, heads=4)


def questions(arrays, case: str, *, ends: bool):
    """(prompts, candidates) of a cloze case; ends: the targets end in [eop], which is not part of an answer."""
    names = ("input_ids", "attention_mask", "target_ids", "logit_mask")
    ids, context, targets, counted = (arrays[f"{case}/in/{name}"] for name in names)
    prompts = [layout.prompt(ids[i, 0, : context[i, 0]], masks=(MASK, GMASK)) for i in range(len(ids))]
    answers = [[targets[i, j][counted[i, j] == 1] for j in range(ids.shape[1])] for i in range(len(ids))]
    assert not ends or all(answer[-1] == EOP for several in answers for answer in several)
    return prompts, [[[answer[:-1] if ends else answer] for answer in several] for several in answers]


def close(expected):
    return pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_every_case_is_tested_here_or_named_above(arrays, facts):
    cases = {"cloze_multi", "cloze_fast", "cloze_single", "multichoice_bi", "multichoice_uni", "generation"}
    assert {name.split("/")[0] for name in arrays} == cases | {"lm", "lambada", "classification"}
    assert set(facts["language_model"]) == set(LANGUAGE_MODEL)
    runs = {n: len(x) for n, x in facts["generation"].items() if isinstance(x, list) and isinstance(x[0], dict)}
    assert runs == GENERATIONS
    assert set(facts["lambada"]) == {"bi", "uni"}


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_cloze_scores_of_several_tokens(model, arrays, power):
    scores = score_tokens(model, *questions(arrays, "cloze_multi", ends=True), marks=MARKS)
    got = [[score.normalised(power) for score in several] for several in scores]
    expected = arrays[f"cloze_multi/out/softmax1_lp{power}"]
    assert np.array(got) == close(expected)
    if power == 0:  # the authors' fast form reads the context once, as ours does
        assert np.array(got) == close(arrays["cloze_fast/out/logits"])


def test_cloze_scores_of_single_tokens(model, arrays):
    names = ("input_ids", "attention_mask", "target_ids")
    ids, context, targets = (arrays[f"cloze_single/in/{name}"] for name in names)
    prompts = [layout.prompt(ids[i, : context[i]], masks=(MASK,)) for i in range(2)]
    candidates = [[[np.array([token])] for token in row] for row in targets]
    scores = score_tokens(model, prompts, candidates, marks=MARKS, count_end=False)
    logprobs = np.array([[score.logprob for score in several] for several in scores])
    assert logprobs == close(arrays["cloze_single/out/log_softmax"])
    logits = arrays["cloze_single/out/logits"]  # they differ from log-probabilities by a constant of each text
    assert logprobs - logprobs[:, :1] == close(logits - logits[:, :1])
    with torch.inference_mode():
        reader = Reader(model, [prompt.tokens for prompt in prompts], capacity=22)
        every = reader.feed([piece([SOP], int(prompt.mask_positions[0])) for prompt in prompts])
    torch.testing.assert_close(every, torch.from_numpy(arrays["cloze_single/out/all_vocab_logits"]), rtol=0, atol=5e-5)


@pytest.mark.parametrize("direction", ["bi", "uni"])
def test_zero_shot_multiple_choice(model, arrays, direction):
    prompts, candidates = questions(arrays, f"multichoice_{direction}", ends=False)
    given = None
    if direction == "uni":  # the question stands in the blank, before each choice
        ids, counted = (arrays[f"multichoice_uni/in/{name}"][:, 0] for name in ("input_ids", "logit_mask"))
        given = [row[3 : np.argmax(mask) + 1] for row, mask in zip(ids, counted, strict=True)]
    scores = score_tokens(model, prompts, candidates, marks=MARKS, count_end=False, given=given)
    for power, name in ((0.0, "logits"), (1.0, "logits_lp1")):
        got = np.array([[score.normalised(power) for score in several] for several in scores])
        assert got == close(arrays[f"multichoice_{direction}/out/{name}"])


@pytest.mark.parametrize("name", LANGUAGE_MODEL)
def test_language_model(model, arrays, facts, name):
    """All but the authors' perplexities, which divide by (tokens - 1) even where fewer were scored: the summed
    negative log-likelihood and the number of scored tokens decide ours.
    """
    case = facts["language_model"][name]
    settings = {
        "cls": CLS,
        "mask": GMASK if case["task_mask"] else MASK,
        "marks": MARKS,
        "window": case["max_seq_len"],
        "stride": case["overlapping_eval"],
        "bidirectional": not case["unidirectional"],
        "given": 1,
    }
    documents = [text_windows(document, **settings) for document in texts_of(arrays, facts, name)]
    windows = [window for document in documents for window in document]
    for index, (example, counted) in enumerate(windows):
        size = len(example.tokens)
        fields = ("text", "position_id", "loss_mask", "target")
        theirs = {field: arrays[f"lm/{name}/window{index}/{field}"] for field in fields}
        # The last slot predicts our [eop], which is not scored and which the authors' windows do not have.
        assert example.tokens[:-1].tolist() == theirs["text"][: size - 1].tolist()
        assert counted[:-1].astype(int).tolist() == theirs["loss_mask"][: size - 1].tolist()
        assert not counted[-1]
        assert example.position_ids[:-1].tolist() == theirs["position_id"][0, : size - 1].tolist()
        assert example.block_position_ids[:-1].tolist() == theirs["position_id"][1, : size - 1].tolist()
        assert example.targets[counted].tolist() == theirs["target"][theirs["loss_mask"] == 1].tolist()
    scores = score_pieces(model, windows)
    assert [score.tokens for score in scores] == case["scored_tokens_per_window"]
    assert [-score.logprob for score in scores] == pytest.approx(case["nll_per_window"], rel=1e-4)
    whole = [score_text(model, document) for document in documents]
    assert -sum(score.logprob for score in whole) == pytest.approx(case["nll_sum"], rel=1e-4)


def texts_of(arrays, facts, name: str) -> list[np.ndarray]:
    """The documents behind a case, put together from the windows of a bidirectional one, which score every token."""
    source = "doc3_bi_overlap16" if name.startswith("doc3") else "doc1_bi_overlap8"
    documents: list[list[int]] = []
    for index in range(facts["language_model"][source]["n_windows"]):
        text, target, mask = (arrays[f"lm/{source}/window{index}/{field}"] for field in ("text", "target", "loss_mask"))
        if index == 0 or text[2] in (MASK, GMASK):  # a first window has one token in its context
            documents.append([int(text[1])])
        documents[-1] += target[mask == 1].tolist()
    assert [len(document) for document in documents] == facts["language_model"][source]["document_lengths"]
    return [np.array(document) for document in documents]


@pytest.mark.parametrize("direction", ["bi", "uni"])
def test_lambada(model, arrays, facts, direction):
    """The last word of a passage; its text is cut by the task, so contexts are taken from the authors' inputs."""
    case = facts["lambada"][direction]
    prompts, answers, given = [], [], []
    for index in range(len(case["texts"])):
        names = ("text", "target", "attention_mask", "loss_mask")
        text, target, context, counted = (arrays[f"lambada/{direction}/{index}/{name}"] for name in names)
        prompts.append(layout.prompt(text[: int(context)], masks=(MASK,)))
        answers.append([[target[counted == 1]]])
        given.append(target[int(context) : np.argmax(counted)])
    scores = score_tokens(model, prompts, answers, marks=MARKS, count_end=False, given=given)
    assert [-one.logprob for (one,) in scores] == pytest.approx(case["nll_per_example"], rel=1e-4, abs=1e-4)
    assert -sum(one.logprob for (one,) in scores) == pytest.approx(case["nll_sum"], rel=1e-4)
    assert [float(one.greedy) for (one,) in scores] == case["correct_per_example"]


@pytest.mark.parametrize("name", GENERATIONS)
def test_greedy_filling_follows_the_authors_token_by_token(arrays, facts, name):
    """All texts of a case in one ragged batch; then the logits behind each choice, a text at a time."""
    model = authors_model(arrays["generation/eop_row"] if name.startswith("eop row replaced") else None)
    prompts, runs = [], facts["generation"][name]
    for run in runs:
        written = sum(len(blank["generated_with_sop"]) for blank in run["blanks"])
        prompts.append(layout.prompt(np.array(run["final_tokens"][:-written]), masks=(MASK, SMASK, GMASK)))
        places = [blank["mask_position"] for blank in run["blanks"]]
        assert prompts[-1].mask_positions.tolist() == places
    decoding = Decoding(max_tokens=int(name.split()[-1]), min_tokens=0)
    filled = fill_tokens(model, prompts, decoding, sop=SOP, stop=(EOP, EOS))
    for (blanks,), run in zip(filled, runs, strict=True):
        assert [[SOP, *tokens] for tokens, _ in blanks] == [blank["generated_with_sop"] for blank in run["blanks"]]
    for prompt, run in zip(prompts, runs, strict=True):
        cache = Cache(model, 1, len(run["final_tokens"]))
        positions = layout.context_positions(len(prompt.tokens))
        with torch.inference_mode():
            model.hidden(*(torch.from_numpy(x)[None] for x in (prompt.tokens, *positions)), cache=cache)
            for step in (step for blank in run["blanks"] for step in blank["steps"]):
                fed = (torch.tensor([[step[key]]]) for key in ("fed_token", "position", "block_position"))
                logits = model.logits(model.hidden(*fed, cache=cache))[0, -1]
                assert logits[step["top5_ids"]].tolist() == pytest.approx(step["top5_logits"], abs=1e-4)
                assert float(logits[EOP]) == pytest.approx(step["eop_logit"], abs=1e-4)
