"""Blank filling: law 5 (cache = no cache, a batch = one text at a time), what training would have asked, bad input.

The authors' greedy steps are in test_parity_scoring.py.
"""

import itertools
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.letters import CLS, EOP, EOS, MARKS, SOP, Letters, decided_model

from glm_model import layout
from glm_model.config import GLMConfig
from glm_model.decoding import Decoding
from glm_model.generation.fill import fill, fill_batch, fill_tokens
from glm_model.generation.prompts import spliced
from glm_model.generation.sampling import Limits, Written

ONCE = "does not hold each number from 0 to 1 once. Use 'left_to_right'"  # a part of the error about an order
RAGGED = ["ab[MASK]", "[MASK]cde[sMASK]fghijk[MASK]lm", "x[gMASK]", "abcdefghijklmnop[MASK]q[MASK]"]


@pytest.fixture
def model(small):
    return decided_model(small, ends=1.6)


def always(model, token: int) -> None:
    """Give one token all the probability."""
    with torch.no_grad():
        model.final_norm.weight.zero_()
        model.final_norm.bias.copy_(model.token_embedding.weight[token] * 100)


def written(model, prompts, decoding, **settings):
    return fill_tokens(model, prompts, decoding, Limits(SOP, (EOP, EOS), vocab_size=36), **settings)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "samples": 3}, {"no_repeat_ngram": 2}], ids=str)
def test_law_5_with_cache_equals_without(model, settings):
    """The fillings of ragged texts, whose blanks end at different steps and some by themselves."""
    texts = ([1, 20, 2, 21, 2, 22, 0], [1, 2, 0], [1, 30, 31, 2])
    prompts = [layout.prompt(np.array(text), masks=(2,)) for text in texts]
    decoding = Decoding(max_tokens=9, seed=4, **settings)
    cached, plain = (written(model, prompts, decoding, use_cache=use_cache) for use_cache in (True, False))
    flat = [[blank for samples in found for blanks in samples for blank in blanks] for found in (cached, plain)]
    assert [tokens for tokens, _ in flat[0]] == [tokens for tokens, _ in flat[1]]
    assert [p for _, p in flat[0]] == pytest.approx([p for _, p in flat[1]], abs=1e-4)
    sizes = {len(tokens) for tokens, _ in flat[0]}
    assert 9 in sizes
    assert min(sizes) < 9


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "samples": 2, "seed": 3}], ids=str)
@pytest.mark.parametrize("order", ["left_to_right", "right_to_left"])
def test_law_5_a_batch_equals_one_text_at_a_time(model, settings, order):
    decoding = Decoding(max_tokens=9, **settings)
    together = fill_batch(model, Letters(), RAGGED, decoding, order=order)
    for text, samples in zip(RAGGED, together, strict=True):
        (alone,) = fill_batch(model, Letters(), [text], decoding, order=order)
        for one, other in zip(samples, alone, strict=True):
            assert [blank.tokens for blank in one.blanks] == [blank.tokens for blank in other.blanks]
            assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert one.text == other.text
    assert fill_batch(model, Letters(), RAGGED[::-1], decoding, order=order)[::-1] == together


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
@pytest.mark.parametrize("max_tokens", [1, 2, 5])
def test_what_was_written_is_what_training_would_have_asked(model, order, max_tokens):
    """One forward over the finished text, laid out as a training example, gives each blank the log-probability that it
    got while it was written; so each blank saw all of those before it, whether they ended or were cut.
    """
    with torch.no_grad():
        model.token_embedding.weight[EOP] *= 2  # many blanks end by themselves
    context = np.array([1, 20, 2, 21, 2, 22, 23, 2, 0])
    prompt = layout.prompt(context, masks=(2,))
    decoding = Decoding(max_tokens=max_tokens, temperature=1.0, samples=16)
    ended = []
    for blanks in fill_tokens(model, [prompt], decoding, Limits(SOP, (EOP,)), order=order)[0]:
        answers = [np.array(blank.tokens) for blank in blanks]
        example = layout.layout_answers(prompt, answers, marks=MARKS, order=np.array(order))
        names = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
        with torch.inference_mode():
            logits = model(*(torch.from_numpy(getattr(example, name))[None] for name in names))[0]
        targets = torch.from_numpy(example.targets)
        logprobs = torch.log_softmax(logits, -1)[torch.arange(len(targets)), targets]
        starts = np.flatnonzero(example.block_position_ids == 1)
        for blank, start in zip(order, starts, strict=True):
            tokens, logprob = blanks[blank]
            ended.append(len(tokens) < max_tokens)
            scored = logprobs[start : start + len(tokens) + ended[-1]]  # [eop] counts where it was written
            assert logprob == pytest.approx(float(scored.sum()), abs=1e-4)
    assert max_tokens == 1 or {True, False} == set(ended)


def test_a_filled_text_has_its_blanks_in_place(model):
    filled = fill(model, Letters(), "ab[MASK]c[sMASK]", max_tokens=3)
    first, second = filled.blanks
    assert filled.text == f"ab{first.text}c{second.text}"
    assert all(len(blank.tokens) <= 3 and blank.logprob < 0 for blank in filled.blanks)
    assert filled.logprob == first.logprob + second.logprob
    assert fill(model, Letters(), "ab[MASK]c[sMASK]", max_tokens=3) == filled
    assert fill_batch(model, Letters(), []) == []


def test_eos_ends_the_input_unless_the_text_ends_in_gmask(model, monkeypatch):
    seen = []

    def record(model, prompts, *settings, **more):
        seen.extend(prompt.tokens.tolist() for prompt in prompts)
        return [[[Written((), 0.0)] * len(prompt.mask_positions)] for prompt in prompts]

    monkeypatch.setattr("glm_model.generation.fill.fill_tokens", record)
    fill_batch(model, Letters(), ["ab[MASK]", "ab[gMASK]", "[gMASK]b"])
    assert seen == [[1, 10, 11, 2, 0], [1, 10, 11, 4], [1, 4, 11, 0]]


def test_order_decides_which_blank_sees_which(model):
    text = "ab[MASK]c[MASK]"
    forward = fill(model, Letters(), text, max_tokens=4)
    backward = fill(model, Letters(), text, max_tokens=4, order=[1, 0])
    ids = np.array([CLS, 10, 11, 2, 12, 2, EOS])
    alone = [written(model, [layout.Prompt(ids, np.array([at]))], Decoding(max_tokens=4))[0][0][0] for at in (3, 5)]
    assert forward.blanks[0].tokens == alone[0].tokens
    assert backward.blanks[1].tokens == alone[1].tokens
    assert forward.blanks[1] != backward.blanks[1]
    assert fill(model, Letters(), text, max_tokens=4, order="right_to_left") == backward
    assert fill(model, Letters(), text, max_tokens=4, order=np.array([1, 0])) == backward  # type: ignore[arg-type]


def test_the_end_token_stops_a_blank_and_counts_in_its_logprob(model):
    always(model, EOP)
    prompt = layout.prompt(np.array([1, 10, 11, 2, 0]), masks=(2,))
    tokens, logprob = written(model, [prompt], Decoding(max_tokens=8, min_tokens=0))[0][0][0]
    assert tokens == ()
    assert logprob == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0}, {"beams": 3}], ids=str)
def test_a_blank_gets_the_least_number_of_tokens(model, settings):
    """At least one by default, as every blank of the training data has."""
    always(model, EOP)
    for least in (None, 1, 4):
        given = {} if least is None else {"min_tokens": least}
        blank = fill(model, Letters(), "ab[MASK]", max_tokens=8, **given, **settings).blanks[0]
        assert len(blank.tokens) == (least or 1)
        assert not {EOP, EOS} & set(blank.tokens)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0}, {"beams": 3}], ids=str)
def test_no_ngram_comes_twice_in_a_blank(model, settings):
    always(model, 12)
    tokens = fill(model, Letters(), "ab[MASK]", max_tokens=12, no_repeat_ngram=2, **settings).blanks[0].tokens
    pairs = list(itertools.pairwise(tokens))
    assert len(set(pairs)) == len(pairs) == 11
    assert tokens[0] == 12


@pytest.mark.parametrize("settings", [{"temperature": 1.0}, {"beams": 4}], ids=str)
def test_ids_beyond_the_vocabulary_are_never_written(model, settings):
    with torch.no_grad():
        model.token_embedding.weight[36:] *= 100
    filled = fill(model, Letters(), "ab[MASK]", max_tokens=20, **settings)
    assert max(filled.blanks[0].tokens, default=0) < 36


def test_seeds_and_samples(model):
    def samples(seed: int, count: int, text: str = "ab[MASK]"):
        decoding = Decoding(max_tokens=12, temperature=2.0, samples=count, seed=seed)
        return [one.blanks[0].tokens for one in fill_batch(model, Letters(), [text], decoding)[0]]

    three = samples(1, 3)
    assert len(set(three)) == 3
    assert samples(1, 3) == three
    assert samples(1, 1) == three[:1], "the first sample does not depend on how many there are"
    assert samples(2, 1) != three[:1]
    single = fill(model, Letters(), "ab[MASK]", max_tokens=12, temperature=2.0, seed=1)
    assert single.blanks[0].tokens == three[0]


def test_training_mode_is_left_as_it_was(model):
    model.train()
    fill(model, Letters(), "a[MASK]", max_tokens=2)
    assert model.training
    with pytest.raises(ValueError, match="order"):
        fill(model, Letters(), "a[MASK]", order="up")
    assert model.training


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("abc", {}, "the text has no mask"),
        ("  ", {}, "the text is empty"),
        ("a[MASK]", {"max_tokens": 0}, "max_tokens=0"),
        ("a[MASK]", {"max_tokens": 49}, "max_tokens=49 is more than the 48 tokens"),
        ("a[MASK]b[MASK]", {"max_tokens": 48}, "max_tokens=48 is more than the 47 tokens"),
        ("a[MASK]" + "b" * 60, {}, "the text has 64 tokens .* and the model has positions for 49. Shorten the text"),
        ("[MASK]" * 60, {}, "the text has 62 tokens"),
        ("a[MASK]", {"beams": 2, "temperature": 1.0}, "contradict each other"),
        ("a[MASK]", {"order": [1]}, r"order=\[1\] does not hold each number from 0 to 0 once. Use 'left_to_right'"),
        ("a[MASK]", {"order": [0, 1]}, r"order=\[0, 1\] is for 2 masks, and the text has one mask"),
        ("a[MASK]b[MASK]", {"order": []}, r"order=\[\] is for 0 masks, and the text has 2 masks"),
        (
            "a[MASK]",
            {"order": None},
            "order: expected a list of the masks' numbers from 0, or the name of .*, got None",
        ),
        ("a[MASK]b[MASK]", {"order": [1.0, 0.0]}, rf"order=\[1\.0, 0\.0\] {ONCE}"),
        ("a[MASK]b[MASK]", {"order": [True, False]}, rf"order=\[True, False\] {ONCE}"),
        ("a[MASK]b[MASK]", {"order": [[0], [1]]}, rf"order=\[\[0\], \[1\]\] {ONCE}"),
        ("a[MASK]b[MASK]", {"order": [0, 0]}, rf"order=\[0, 0\] {ONCE}"),
        (None, {}, "text: expected a string, got NoneType. fill_batch takes a list of texts"),
        (["a[MASK]"], {}, "text: expected a string, got list"),
        (b"a[MASK]", {}, "text: expected a string, got bytes"),
        ("a[MASK]", {"max_tokens": 1.5}, "max_tokens=1.5 must be a whole number"),
        ("a[MASK]", {"order": "right"}, "order='right'.*'right_to_left'"),
    ],
)
def test_bad_input_is_named(model, text, settings, message):
    with pytest.raises(ValueError, match=message):
        fill(model, Letters(), text, **{"max_tokens": 8, **settings})


def test_options_are_fields_of_a_decoding_and_override_a_given_one(model):
    given = fill(model, Letters(), "ab[MASK]", Decoding(max_tokens=5, temperature=2.0, seed=3))
    assert fill(model, Letters(), "ab[MASK]", max_tokens=5, temperature=2.0, seed=3) == given
    assert fill(model, Letters(), "ab[MASK]", Decoding(max_tokens=9, temperature=2.0, seed=3), max_tokens=5) == given
    with pytest.raises(TypeError, match="max_token"):
        fill(model, Letters(), "ab[MASK]", max_token=5)
    with pytest.raises(ValueError, match="fill gives one version of a text, not samples=2: use fill_batch"):
        fill(model, Letters(), "ab[MASK]", temperature=1.0, samples=2)


def test_a_bad_text_among_several_is_named(model):
    with pytest.raises(ValueError, match="text 2 of 3: the text has no mask"):
        fill_batch(model, Letters(), ["a[MASK]", "b", "c[MASK]"])
    with pytest.raises(ValueError, match="text 2 of 2: text: expected a string, got int"):
        fill_batch(model, Letters(), ["a[MASK]", 3])  # type: ignore[list-item]


def test_what_is_no_list_of_texts_and_no_decoding_is_refused(model):
    with pytest.raises(ValueError, match=r"texts: expected a list of strings, got 'a\[MASK\]'"):
        fill_batch(model, Letters(), "a[MASK]")
    with pytest.raises(ValueError, match=r"decoding: expected a Decoding, such as Decoding\(max_tokens=8\), got dict"):
        fill_batch(model, Letters(), ["a[MASK]"], {"max_tokens": 8})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "answers", "parts"),
    [
        ("Ray  is\n[MASK] - 🦙!", [" a tool\n"], ("Ray  is\n", "a tool", " - 🦙!")),
        ("so[MASK]", [" it goes\n"], ("so", " it goes", "")),
        ("[MASK][sMASK]", [" red", " car"], ("", "red", "", " car", "")),
        ("a [gMASK]b[MASK] c", ["", "x "], ("a ", "", "b", "x", " c")),
    ],
)
def test_answers_are_spliced_into_the_text_as_it_is(text, answers, parts):
    assert spliced(text, answers) == parts


def test_a_filled_text_keeps_the_users_own_text(small, tiny_tokenizer):
    """Spaces around signs, letters in capitals, line ends, what the tokenizer does not know."""
    model = decided_model(GLMConfig(**{**small.to_dict(), "vocab_size": tiny_tokenizer.padded_vocab_size}))
    text = "The  CAT ( 🦙 ) sat\n\non [MASK] ; don 't [MASK]\t!"
    filled = fill(model, tiny_tokenizer, text, max_tokens=3)
    first, second = (blank.text for blank in filled.blanks)
    assert filled.parts == ("The  CAT ( 🦙 ) sat\n\non ", first, " ; don 't ", second, "\t!")
    assert filled.text == "".join(filled.parts)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "samples": 20}, {"beams": 3}], ids=str)
def test_control_tokens_are_never_written(model, settings):
    special = Letters.special
    for token in (special.cls, special.mask, special.smask, special.gmask, special.sop):
        always(model, token)
        for filled in fill_batch(model, Letters(), ["ab[MASK]"], Decoding(max_tokens=6, **settings))[0]:
            assert not Letters.control_ids & set(filled.blanks[0].tokens)
            assert filled.blanks[0].tokens
    prompt = layout.prompt(np.array([1, 10, 2, 0]), masks=(2,))
    assert written(model, [prompt], Decoding(max_tokens=1))[0][0][0].tokens == (SOP,), "by itself it bans nothing"


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "top_k": 3}, {"beams": 3}], ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(model, settings, bad):
    with torch.no_grad():
        model.layers[1].mlp_in.bias[0] = bad
    with pytest.raises(ValueError, match=r"weights are not finite: layers\.1\.mlp_in\.bias hold NaN or infinity"):
        fill_batch(model, Letters(), ["ab[MASK]"], Decoding(max_tokens=3, **settings))


def test_the_benchmark_runs(tmp_path, monkeypatch, capsys):
    script, report = Path(__file__).resolve().parents[3] / "benchmarks" / "generate.py", tmp_path / "report.json"
    monkeypatch.syspath_prepend(script.parent)  # as of a script that Python runs
    sizes = ["--size=tiny", "--new=16", "--texts=2", "--rounds=1"]
    monkeypatch.setattr(sys, "argv", [str(script), *sizes, f"--json={report}"])
    runpy.run_path(str(script), run_name="__main__")
    found = json.loads(report.read_text())
    assert set(found["ratios"]) == {"cached_vs_uncached", "batch_vs_one_at_a_time"}
    assert set(found["values"]) == {"cached_s", "uncached_s", "batch_s", "one_at_a_time_s"}
    assert "cached_vs_uncached" in capsys.readouterr().out
