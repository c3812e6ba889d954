"""Beam search equals full enumeration where the beam holds everything; it is deterministic, a batch changes nothing."""

import itertools

import numpy as np
import pytest
import torch
from helpers.letters import CLS, EOP, EOS, SOP, Letters, decided_model

from glm_model import layout
from glm_model.decoding import Decoding
from glm_model.generation.fill import fill_batch, fill_tokens
from glm_model.generation.sampling import Limits, Written
from glm_model.generation.session import piece_inputs

WORDS = (1, 2, 3)  # a vocabulary of four ids: three words and, as id 0, the end
LIMITS = Limits(SOP, stop=(0,), vocab_size=4)
CONTEXT = np.array([CLS, 2, 3, 2, 1])
Ending = tuple[tuple[int, ...], bool]  # tokens, and whether the end token follows


@pytest.fixture(params=[0, 1])
def model(small, request):
    return decided_model(small, seed=request.param)


def every_ending(decoding: Decoding) -> list[Ending]:
    """All that a blank may hold."""
    found = []
    for size in range(decoding.max_tokens + 1):
        for tokens in itertools.product(WORDS, repeat=size):
            n = decoding.no_repeat_ngram
            grams = [tokens[i : i + n] for i in range(size - n + 1)] if n else []
            if len(set(grams)) < len(grams) or size < decoding.min_tokens:
                continue
            found.append((tokens, size < decoding.max_tokens))
    return found


@torch.inference_mode()
def logprobs_of(model, read: np.ndarray, context: int, place: int, found: list[Ending]) -> dict[Ending, float]:
    """By forwards without a cache over inputs [3, n] that were read before and a blank; one for each size of blank."""
    logprobs = {}
    for size, several in itertools.groupby(sorted(found), key=lambda ending: len(ending[0])):
        endings = list(several)
        rows = [np.concatenate((read, piece_inputs((SOP, *tokens), place)), 1) for tokens, _ in endings]
        inputs = torch.from_numpy(np.stack(rows, axis=1))
        logits = model(*inputs, torch.zeros_like(inputs[0]), torch.full_like(inputs[0], context))
        each = torch.log_softmax(logits[:, read.shape[1] :, :4], -1).tolist()
        for row, (tokens, ends) in zip(each, endings, strict=True):
            logprobs[tokens, ends] = sum(row[i][target] for i, target in enumerate((*tokens, 0)[: size + ends]))
    return logprobs


def enumerated(model, prompt: layout.Prompt, order: list[int], decoding: Decoding) -> list[Written]:
    """The best of all that each blank may hold, blank by blank."""
    read = np.stack((prompt.tokens, *layout.context_positions(len(prompt.tokens))))
    written = {}
    for blank in order:
        place = int(prompt.mask_positions[blank])
        logprobs = logprobs_of(model, read, len(prompt.tokens), place, every_ending(decoding))
        tokens, ends = max(logprobs, key=lambda e: logprobs[e] / (len(e[0]) + e[1]) ** decoding.length_penalty)
        written[blank] = Written(tokens, logprobs[tokens, ends])
        read = np.concatenate((read, piece_inputs((SOP, *tokens), place)), 1)
    return [written[blank] for blank in sorted(written)]


@pytest.mark.parametrize(
    "settings",
    [
        {"max_tokens": 3, "length_penalty": 0.0},
        {"max_tokens": 3, "min_tokens": 0, "length_penalty": 0.0},
        {"max_tokens": 4, "length_penalty": 0.7},
        {"max_tokens": 3, "min_tokens": 2},
        {"max_tokens": 4, "no_repeat_ngram": 2, "length_penalty": 2.0},
        {"max_tokens": 3, "no_repeat_ngram": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_beam_as_wide_as_everything_finds_the_best_of_all(model, settings, order):
    decoding = Decoding(beams=4 * 3 ** (settings["max_tokens"] - 1), **settings)  # all candidates of the last step
    prompt = layout.Prompt(CONTEXT, np.array([1, 3]))
    found = fill_tokens(model, [prompt], decoding, LIMITS, order=order)[0][0]
    expected = enumerated(model, prompt, order, decoding)
    assert [tokens for tokens, _ in found] == [tokens for tokens, _ in expected]
    assert [logprob for _, logprob in found] == pytest.approx([logprob for _, logprob in expected], abs=1e-4)


def searched(model, prompt: layout.Prompt, decoding: Decoding) -> Written:
    """Beam search as a few lines without a cache, for one blank."""
    read = np.stack((prompt.tokens, *layout.context_positions(len(prompt.tokens))))
    live, found = [()], []
    for size in range(decoding.max_tokens):
        words = (*WORDS, 0) if size >= decoding.min_tokens else WORDS
        asked = [((*tokens, word), False) if word else (tokens, True) for tokens in live for word in words]
        logprobs = logprobs_of(model, read, len(prompt.tokens), int(prompt.mask_positions[0]), asked)
        candidates = sorted(((x, tokens, ends) for (tokens, ends), x in logprobs.items()), reverse=True)
        found += [(x / (size + 1) ** decoding.length_penalty, y, x) for x, y, e in candidates[: decoding.beams] if e]
        best = [(logprob, tokens) for logprob, tokens, ends in candidates if not ends][: decoding.beams]
        live = [tokens for _, tokens in best]
    found += [(x / decoding.max_tokens**decoding.length_penalty, y, x) for x, y in best]
    _, tokens, logprob = max(found)
    return Written(tokens, logprob)


@pytest.mark.parametrize("length_penalty", [0.0, 1.5])
@pytest.mark.parametrize("width", [2, 4])
def test_a_narrow_beam_equals_a_plain_one(model, width, length_penalty):
    prompt = layout.Prompt(CONTEXT, np.array([3]))
    for end_length in (1.0, 2.0, 4.0):  # of the end's vector: ends are among the candidates more often
        with torch.no_grad():
            model.token_embedding.weight[0] *= end_length
        for least in (0, 2):
            decoding = Decoding(max_tokens=4, min_tokens=least, beams=width, length_penalty=length_penalty)
            found = fill_tokens(model, [prompt], decoding, LIMITS)[0][0][0]
            expected = searched(model, prompt, decoding)
            assert found.tokens == expected.tokens
            assert found.logprob == pytest.approx(expected.logprob, abs=1e-4)


def test_a_beam_finds_what_greedy_misses(model):
    def best(**settings) -> float:
        decoding = Decoding(max_tokens=4, **settings)
        return fill_tokens(model, [prompt], decoding, LIMITS)[0][0][0].logprob

    prompt = layout.Prompt(CONTEXT, np.array([3]))
    greedy, *beams = (best(beams=width, **({"length_penalty": 0.0} if width > 1 else {})) for width in (1, 2, 64))
    rounding = 1e-5  # what equal tokens differ by, in a row alone and beside others
    assert greedy - rounding <= beams[0] <= beams[1] + rounding
    assert greedy < beams[1] - 0.1


def test_texts_of_a_batch_are_searched_as_if_alone(model):
    texts = ["ab[MASK]c[MASK]", "[MASK]", "abcdefgh[MASK]ij", "a[gMASK]"]
    decoding = Decoding(max_tokens=7, beams=3, length_penalty=0.6, no_repeat_ngram=2)
    together = fill_batch(model, Letters(), texts, decoding)
    for text, (found,) in zip(texts, together, strict=True):
        (alone,) = fill_batch(model, Letters(), [text], decoding)[0]
        assert [blank.tokens for blank in found.blanks] == [blank.tokens for blank in alone.blanks]
        assert found.logprob == pytest.approx(alone.logprob, abs=1e-4)
    assert fill_batch(model, Letters(), texts, decoding) == together


def test_law_5_beams_with_cache_equal_beams_without(model):
    two_blanks = layout.Prompt(np.array([CLS, 20, 2, 21, 2, EOS]), np.array([2, 4]))
    prompts = [two_blanks, layout.Prompt(CONTEXT, np.array([3]))]
    decoding = Decoding(max_tokens=6, beams=4, length_penalty=0.5)
    cached, plain = (
        fill_tokens(model, prompts, decoding, Limits(SOP, (EOP, EOS), vocab_size=36), use_cache=use_cache)
        for use_cache in (True, False)
    )
    flat = [[blank for (blanks,) in found for blank in blanks] for found in (cached, plain)]
    assert [tokens for tokens, _ in flat[0]] == [tokens for tokens, _ in flat[1]]
    assert [logprob for _, logprob in flat[0]] == pytest.approx([logprob for _, logprob in flat[1]], abs=1e-4)
    assert len(flat[0]) == 3
