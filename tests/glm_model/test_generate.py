"""Blank filling: law 5 (cache = no cache), the authors' greedy steps (golden/scoring.json), sampling, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from glm_model import layout
from glm_model.generate import Sampling, _choose, fill, fill_tokens
from glm_model.model import GLM, Cache
from glm_model.pretrained import from_authors_state
from glm_model.tokenizer import SpecialTokens

GOLDEN = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference" / "golden"
MASK, SMASK, GMASK, SOP, EOP, EOS = 2, 993, 992, 990, 991, 0
GENERATIONS = (
    ("plain weights, out_seq_length 12", 12, 5),
    ("eop row replaced, out_seq_length 12", 12, 5),
    ("eop row replaced, task_mask, out_seq_length 10", 10, 3),
)


class Letters:
    """A tokenizer in which every character is a token: 'a' is 10."""

    special = SpecialTokens(pad=0, cls=1, mask=2, smask=3, gmask=4, sop=5, eop=6, unk=None)
    vocab_size = 36

    def encode_prompt(self, text: str) -> np.ndarray:
        for surface, sign in (("[MASK]", "\x02"), ("[sMASK]", "\x03"), ("[gMASK]", "\x04")):
            text = text.replace(surface, sign)
        return np.array([ord(c) if ord(c) < 5 else ord(c) - 87 for c in text], np.int64)

    def decode(self, ids) -> str:
        return "".join(chr(int(i) + 87) for i in ids if i >= 10)


@pytest.fixture
def model(small) -> GLM:
    torch.manual_seed(0)
    model = GLM(small)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_law_5_with_cache_equals_without(model, temperature):
    prompt = layout.prompt(np.array([1, 20, 2, 21, 2, 22, 0]), masks=(2,))
    sampling = Sampling(max_tokens=9, temperature=temperature, seed=4)
    with_cache, without = (
        fill_tokens(model, prompt, sampling, sop=5, stop=(), use_cache=use_cache) for use_cache in (True, False)
    )
    assert [tokens for tokens, _ in with_cache] == [tokens for tokens, _ in without]
    assert [p for _, p in with_cache] == pytest.approx([p for _, p in without], abs=1e-4)
    assert len(with_cache[0][0]) == 9


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
@pytest.mark.parametrize("max_tokens", [1, 2, 5])
def test_what_was_written_is_what_training_would_have_asked(model, order, max_tokens):
    """One forward over the finished text, laid out as a training example, gives each blank the log-probability that it
    got while it was written; so each blank saw all of those before it, whether they ended or were cut.
    """
    with torch.no_grad():
        model.token_embedding.weight[6] *= 1.5  # some blanks end by themselves
    context = np.array([1, 20, 2, 21, 2, 22, 23, 2, 0])
    prompt = layout.prompt(context, masks=(2,))
    ended = []
    for seed in range(6):
        sampling = Sampling(max_tokens=max_tokens, temperature=1.0, seed=seed, min_tokens=1)
        written = fill_tokens(model, prompt, sampling, sop=5, stop=(6,), order=order)
        pieces = np.split(context, prompt.mask_positions)
        text, spans = list(pieces[0]), []
        for (tokens, _), after in zip(written, pieces[1:], strict=True):
            spans.append((len(text), len(text) + len(tokens)))
            text += [*tokens, *after[1:]]
        marks = layout.Marks(sop=5, eop=6, pad=0)
        example = layout.layout(np.array(text), np.array(spans)[order], mask=2, marks=marks)
        names = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
        with torch.inference_mode():
            logits = model(*(torch.from_numpy(getattr(example, name))[None] for name in names))[0]
        targets = torch.from_numpy(example.targets)
        logprobs = torch.log_softmax(logits, -1)[torch.arange(len(targets)), targets]
        starts = np.flatnonzero(example.block_position_ids == 1)
        for blank, start in zip(order, starts, strict=True):
            tokens, logprob = written[blank]
            ended.append(len(tokens) < max_tokens)
            scored = logprobs[start : start + len(tokens) + ended[-1]]  # [eop] counts where it was written
            assert logprob == pytest.approx(float(scored.sum()), abs=1e-4)
    assert max_tokens == 1 or {True, False} == set(ended)


def golden_runs():
    for name, max_tokens, count in GENERATIONS:
        for index in range(count):
            yield pytest.param(name, max_tokens, index, id=f"{name} {index}")


@pytest.mark.parametrize(("name", "max_tokens", "index"), list(golden_runs()))
def test_greedy_filling_follows_the_authors_token_by_token(name, max_tokens, index):
    if not (GOLDEN / "scoring.json").exists():
        pytest.skip("the authors' golden values are not here (scoring.json is absent)")
    run = json.loads((GOLDEN / "scoring.json").read_text())["generation"][name][index]
    with np.load(GOLDEN / "model_parity.npz") as file:
        state = {key[2:]: torch.from_numpy(file[key]) for key in file.files if key.startswith("w/")}
    if name.startswith("eop row replaced"):
        with np.load(GOLDEN / "scoring.npz") as file:
            state["word_embeddings.weight"][EOP] = torch.from_numpy(file["generation/eop_row"])
    model = from_authors_state(state, heads=4)
    blanks = run["blanks"]
    written = sum(len(blank["generated_with_sop"]) for blank in blanks)
    context = np.array(run["final_tokens"][: len(run["final_tokens"]) - written])
    prompt = layout.prompt(context, masks=(MASK, SMASK, GMASK))
    assert prompt.mask_positions.tolist() == [blank["mask_position"] for blank in blanks]

    filled = fill_tokens(model, prompt, Sampling(max_tokens=max_tokens), sop=SOP, stop=(EOP, EOS))
    assert [[SOP, *tokens] for tokens, _ in filled] == [blank["generated_with_sop"] for blank in blanks]

    cache = Cache(model, 1, len(context) + written)  # and the logits behind each choice
    steps = [step for blank in blanks for step in blank["steps"]]
    positions = layout.context_positions(len(context))
    with torch.inference_mode():
        model.hidden(*(torch.from_numpy(x)[None] for x in (prompt.tokens, *positions)), cache=cache)
        for step in steps:
            fed = (torch.tensor([[step[key]]]) for key in ("fed_token", "position", "block_position"))
            logits = model.logits(model.hidden(*fed, cache=cache))[0, -1]
            assert logits[step["top5_ids"]].tolist() == pytest.approx(step["top5_logits"], abs=1e-4)
            assert float(logits[EOP]) == pytest.approx(step["eop_logit"], abs=1e-4)


def test_a_filled_text_has_its_blanks_in_place(model):
    filled = fill(model, Letters(), "ab[MASK]c[sMASK]", max_tokens=3)
    first, second = filled.blanks
    assert filled.text == f"ab{first.text}c{second.text}"
    assert all(len(blank.tokens) <= 3 and blank.logprob < 0 for blank in filled.blanks)
    assert fill(model, Letters(), "ab[MASK]c[sMASK]", max_tokens=3) == filled


def test_eos_ends_the_input_unless_the_text_ends_in_gmask(model, monkeypatch):
    seen = []

    def record(model, prompt, *settings, **more):
        seen.append(prompt.tokens)
        return [((), 0.0)]

    monkeypatch.setattr("glm_model.generate.fill_tokens", record)
    for text in ("ab[MASK]", "ab[gMASK]", "[gMASK]b"):
        fill(model, Letters(), text)
    assert [tokens.tolist() for tokens in seen] == [[1, 10, 11, 2, 0], [1, 10, 11, 4], [1, 4, 11, 0]]


def test_order_decides_which_blank_sees_which(model):
    text = "ab[MASK]c[MASK]"
    forward = fill(model, Letters(), text, max_tokens=4)
    backward = fill(model, Letters(), text, max_tokens=4, order=[1, 0])
    alone = [
        fill_tokens(
            model,
            layout.Prompt(np.array([1, 10, 11, 2, 12, 2, 0]), np.array([place])),
            Sampling(max_tokens=4),
            sop=5,
            stop=(6, 0),
            vocab_size=36,
        )[0][0]
        for place in (3, 5)
    ]
    assert forward.blanks[0].tokens == alone[0]
    assert backward.blanks[1].tokens == alone[1]
    assert forward.blanks[1] != backward.blanks[1]


def test_the_end_token_stops_a_blank_and_counts_in_its_logprob(model):
    with torch.no_grad():
        model.final_norm.weight.zero_()
        model.final_norm.bias.copy_(model.token_embedding.weight[6] * 10)  # eop always wins
    prompt = layout.prompt(np.array([1, 10, 11, 2, 0]), masks=(2,))
    tokens, logprob = fill_tokens(model, prompt, Sampling(max_tokens=8), sop=5, stop=(6, 0), vocab_size=36)[0]
    assert tokens == ()
    assert logprob == pytest.approx(0, abs=0.01)


def test_fill_writes_at_least_one_token_as_every_blank_of_the_training_data_has(model):
    with torch.no_grad():
        model.final_norm.weight.zero_()
        model.final_norm.bias.copy_(model.token_embedding.weight[6] * 10)  # eop always wins
    for temperature in (0.0, 1.0):
        blank = fill(model, Letters(), "ab[MASK]", max_tokens=8, temperature=temperature).blanks[0]
        assert len(blank.tokens) == 1
        assert blank.tokens[0] not in (6, 0)


def test_ids_beyond_the_vocabulary_are_never_written(model):
    with torch.no_grad():
        model.token_embedding.weight[36:] *= 100
    filled = fill(model, Letters(), "ab[MASK]", temperature=1.0, max_tokens=20)
    assert max(filled.blanks[0].tokens, default=0) < 36


def test_sampling_filters_and_seeds():
    logits = torch.log(torch.tensor([0.1, 0.5, 0.15, 0.25]))

    def drawn(**settings) -> set[int]:
        sampling = Sampling(**{"temperature": 1.0, **settings})
        generator = torch.Generator().manual_seed(0)
        return {_choose(logits, sampling, generator) for _ in range(200)}

    assert drawn() == {0, 1, 2, 3}
    assert drawn(top_k=2) == {1, 3}
    assert drawn(top_p=0.7) == {1, 3}
    assert drawn(top_p=0.76) == {1, 2, 3}
    assert drawn(top_p=0.01) == {1}
    assert drawn(temperature=0) == {1}
    assert drawn(temperature=0.01) == {1}


def test_a_seed_repeats_a_sample(model):
    def sample(seed: int):
        return fill(model, Letters(), "ab[MASK]", temperature=2.0, seed=seed, max_tokens=12).blanks[0].tokens

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_training_mode_is_left_as_it_was(model):
    model.train()
    fill(model, Letters(), "a[MASK]", max_tokens=2)
    assert model.training


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("abc", {}, "the text has no mask"),
        ("  ", {}, "the text is empty"),
        ("a[MASK]", {"max_tokens": 0}, "max_tokens=0"),
        ("a[MASK]", {"max_tokens": 49}, "max_tokens=49 is more than the 48 tokens"),
        ("a[MASK]b[MASK]", {"max_tokens": 48}, "max_tokens=48 is more than the 47 tokens"),
        ("a[MASK]" + "b" * 60, {}, "position_ids holds 63; this model takes 0 to 48. Shorten"),
        ("a[MASK]", {"top_p": 0.0}, "top_p=0.0"),
        ("a[MASK]", {"temperature": -1.0}, "temperature=-1.0"),
        ("a[MASK]", {"order": [1]}, "does not name each of the text's 1 masks once"),
        ("a[MASK]", {"order": "right"}, "order='right'"),
    ],
)
def test_bad_input_is_named(model, text, settings, message):
    with pytest.raises(ValueError, match=message):
        fill(model, Letters(), text, **{"max_tokens": 8, **settings})
