"""Answers: what one forward by hand says, whatever the batch; ties; batches that follow from the questions alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from glm_model import GLM, layout
from glm_model.config import GLMConfig
from glm_model.decoding import Decoding
from glm_model.generation.fill import fill_tokens
from glm_model.generation.sampling import Limits
from glm_model.generation.scoring import score_text, text_windows
from pipelines.questions.pattern import Pattern
from pipelines.questions.question import ask
from pipelines.questions.task import Item, Task
from workflows.answering import answers
from workflows.answering.answers import answer, batches

WORDS = {"bad": "cat", "good": "dog"}
TEXTS = ["the cat sat", "a dog ran home then said go", "go", "the mat", "smith said the dog sat on a mat"]


@pytest.fixture(scope="module")
def model(tiny_tokenizer):
    torch.manual_seed(0)
    shape = GLMConfig(layers=2, width=32, heads=2, vocab_size=128, positions=48, dropout=0.0, attention_dropout=0.0)
    model = GLM(shape).eval()
    with torch.no_grad():
        model.token_embedding.weight.normal_(std=0.5)  # so that candidates differ by more than rounding
    return model


def questions(tokenizer, words=WORDS, *, kind="choose", candidates=(), texts=TEXTS):
    pattern = Pattern("{gmask}" if kind == "read" else "{text} It is {mask}.", words)
    task = Task("own", 1, kind, (pattern,), item=lambda row: Item("", {}), labels=tuple(words))
    items = [Item(str(n), {"text": text}, candidates=candidates) for n, text in enumerate(texts)]
    return [ask(task, pattern, item, tokenizer, positions=48) for item in items]


def by_hand(model, tokenizer, question, tokens, *, end: bool = True) -> float:
    """One example, one forward, no batch."""
    special = tokenizer.special
    example = layout.layout_answers(
        question.prompt, [tokens], marks=layout.Marks(special.sop, special.eop, special.pad)
    )
    names = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
    with torch.inference_mode():
        logits = model(*(torch.from_numpy(getattr(example, name))[None] for name in names))[
            0, :, : tokenizer.vocab_size
        ]
    counted = np.flatnonzero(example.loss_mask)[: (None if question.count_end else 1) if end else len(tokens)]
    return float(logits.log_softmax(-1).numpy()[counted, example.targets[counted]].sum())


@pytest.mark.parametrize(
    ("words", "kind", "candidates", "counts"),
    [
        (WORDS, "choose", (), (1, 1)),
        ({"bad": "cat", "good": "the dog ran"}, "choose", (), (2, 4)),
        ({}, "choose", ("the mat sat", "go", "a dog said go then"), (4, 2, 6)),
        ({}, "read", ("the dogs ran", "the dog ran home"), (5, 5)),
    ],
)
def test_an_answer_is_what_one_forward_by_hand_says(model, tiny_tokenizer, words, kind, candidates, counts):
    asked = questions(tiny_tokenizer, words, kind=kind, candidates=candidates)
    together = answer(model, tiny_tokenizer, asked)
    for question, found in zip(asked, together, strict=True):
        expected = [by_hand(model, tiny_tokenizer, question, tokens) for tokens in question.candidates]
        assert found.logprobs == pytest.approx(expected, abs=1e-5)
        assert found.choice == int(np.argmax(expected))
        assert found.tokens == counts
        assert not found.is_tied
        assert answer(model, tiny_tokenizer, [question])[0].logprobs == pytest.approx(found.logprobs, abs=1e-5)


def test_one_state_predicts_the_tokens_that_follow_the_same_in_a_question(tiny_tokenizer):
    asked = questions(tiny_tokenizer, {}, kind="read", candidates=("the cat sat", "the dog sat", "go"), texts=["", ""])
    rows = [(question, tokens) for question in asked for tokens in question.candidates]
    first, state, nth = answers.states(rows)
    # [eop] included: the cat sat . | the dog sat . | go . and the same of the other question
    one = [0, 1, 2, 3, 0, 1, 4, 5, 0, 6]
    assert state.tolist() == one + [7 + place for place in one]
    assert first.tolist() == [0, 1, 2, 3, 6, 7, 9, 10, 11, 12, 13, 16, 17, 19]
    assert nth.tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 2, 0] * 2


def test_what_is_written_is_what_the_model_fills_in_greedily(model, tiny_tokenizer):
    special, vocabulary = tiny_tokenizer.special, tiny_tokenizer.vocab_size
    asked = questions(tiny_tokenizer, {}, kind="write", candidates=("cat",))
    limits = Limits(special.sop, stop=(), vocab_size=vocabulary)
    written = fill_tokens(model, [one.prompt for one in asked], Decoding(max_tokens=3), limits)
    for question, ((blank,),) in zip(asked, written, strict=True):
        tokens = np.array(blank.tokens)
        other = np.append(tokens[:-1], (tokens[-1] + 1) % vocabulary)
        for has_labels, yes, no in ((False, 0, None), (True, 1, 0)):
            free = replace(question, has_labels=has_labels, count_end=False)
            asked_so = [
                (replace(free, candidates=(tokens,)), yes),
                (replace(free, candidates=(tokens[:1],)), yes),
                (replace(free, candidates=(other,)), no),
                (replace(free, candidates=(tokens,), count_end=True), no),  # it goes on behind them
            ]
            for one, expected in asked_so:
                assert answer(model, tiny_tokenizer, [one])[0].choice == expected


def test_among_candidates_the_first_is_written_where_it_is_the_likeliest_per_token(model, tiny_tokenizer):
    long, short = "the cat sat on a mat", "go"
    for candidates in ((long, short), (short, long)):
        (question,) = questions(tiny_tokenizer, {}, kind="write", candidates=candidates, texts=["x"])
        (found,) = answer(model, tiny_tokenizer, [question])
        means = np.array(found.logprobs) / found.tokens
        assert (found.choice == 0) == (means.argmax() == 0)
        assert found.tokens == tuple(len(one) + 1 for one in question.candidates)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_text_longer_than_the_model_is_read_in_windows_each_token_once(model, tiny_tokenizer, bidirectional):
    special, text = tiny_tokenizer.special, " ".join(TEXTS * 6)
    pattern = Pattern("{before}{gmask}" if bidirectional else "{gmask}")
    task = Task("own", 1, "read", (pattern,), item=lambda row: Item("", {}), count_end=False, stride=20)
    item = Item("0", {"before": ""}, gold="0", candidates=(text,))
    question = ask(task, pattern, item, tiny_tokenizer, positions=48)
    tokens = tiny_tokenizer.encode(text)
    assert len(tokens) > 2 * 48
    windows = text_windows(
        tokens,
        cls=special.cls,
        mask=special.gmask,
        marks=layout.Marks(special.sop, special.eop, special.pad),
        window=47,
        stride=20,
        bidirectional=bidirectional,
    )
    expected = score_text(model, windows, vocab_size=tiny_tokenizer.vocab_size)
    short = replace(question, item=Item("1", {}), candidates=(tokens[:5],))
    found, other = answer(model, tiny_tokenizer, [question, short])
    assert found.logprobs == pytest.approx([expected.logprob], abs=1e-4)
    assert found.tokens == (expected.tokens,) == (len(tokens),)
    assert other.logprobs == pytest.approx([by_hand(model, tiny_tokenizer, short, tokens[:5], end=False)], abs=1e-4)


def test_candidates_whose_end_counts_and_others_may_be_asked_together(model, tiny_tokenizer):
    one, other = questions(tiny_tokenizer, {}, kind="write", candidates=("the cat",), texts=["go", "a mat"])
    asked = [replace(one, count_end=False), replace(other, count_end=True)]
    apart = [answer(model, tiny_tokenizer, [question])[0] for question in asked]
    together = answer(model, tiny_tokenizer, asked)
    assert [found.tokens for found in together] == [(2,), (3,)]
    for found, alone in zip(together, apart, strict=True):
        assert found.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_equally_likely_candidates_are_counted_and_the_first_is_chosen(model, tiny_tokenizer):
    for words in ({"a": "cat", "b": "cat"}, {"a": "the cat", "b": "the cat"}):
        (found,) = answer(model, tiny_tokenizer, questions(tiny_tokenizer, words, texts=["go"]))
        assert found.logprobs[0] == found.logprobs[1]
        assert (found.choice, found.is_tied) == (0, True)


def test_of_equal_texts_none_is_chosen(model, tiny_tokenizer):
    asked = questions(tiny_tokenizer, {}, kind="read", candidates=("the dog ran",) * 2, texts=["x"])
    (found,) = answer(model, tiny_tokenizer, asked)
    assert (found.choice, found.is_tied) == (None, True)


def test_batches_follow_from_the_questions_alone(tiny_tokenizer):
    asked = questions(tiny_tokenizer)
    made = batches(asked, positions=60)
    assert [[one.item.id for one in batch] for batch in made] == [["2", "3", "0"], ["1", "4"]]
    assert [[one.item.id for one in batch] for batch in batches(asked[::-1], positions=60)] == [
        [one.item.id for one in batch] for batch in made
    ]
    assert [len(batch) for batch in batches(asked, positions=1)] == [1] * 5


def test_weights_that_are_not_finite_are_refused(model, tiny_tokenizer):
    broken = GLM(replace(model.config)).eval()
    broken.load_state_dict(model.state_dict())
    broken.final_norm.weight.data[0] = float("nan")
    for words in (WORDS, {"bad": "the cat", "good": "dog"}):
        with pytest.raises(ValueError, match="the model's weights are not finite"):
            answer(broken, tiny_tokenizer, questions(tiny_tokenizer, words))
