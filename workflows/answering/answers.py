"""What a model answers: the log-probability of every candidate of a question, and which one it chooses.

Questions are answered in batches that follow from the questions and the model alone, so that an answer never depends on
the order of items, on who computes it, or on what is done already: floating-point sums differ in their last bits
between batches of other shapes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from glm_model import layout
from glm_model.attention import row_width
from glm_model.checks import check_finite
from glm_model.classifier import Classifier
from glm_model.generation.scoring import Scored, score_examples, score_tokens, text_windows
from glm_model.generation.session import Session, evaluating, piece_inputs
from glm_model.logprobs import target_logprobs
from glm_model.model import GLM
from glm_model.tokenizer import Tokenizer
from pipelines.feed.questions import lay_out_questions
from pipelines.questions.question import Question
from workflows.answering.writing import Writing, rate_targets, write

# Positions of a batch, padding included. 8,192 take 150 MiB more memory for BLiMP (`mini`), and no less time.
POSITIONS = 4096
_LOGITS = 1 << 22  # at a time: 16 MiB in fp32


@dataclass(frozen=True)
class Answer:
    """What a model says to a question."""

    logprobs: tuple[float, ...]
    """In nats, for each candidate: the sum over its tokens, and its `[eop]` where that counts; or what a classification
    head gives its class.
    """
    tokens: tuple[int, ...]
    """How many tokens of each candidate are counted; none of a class."""
    choice: int | None
    """Number of the likeliest candidate, of equal ones the first. None where texts that are read are equally likely:
    nothing is chosen then, which counts as wrong. Of a task that writes: its second label, or 0 where it has none, if
    the first candidate is written; else the first label, or None.
    """
    is_tied: bool
    """Whether another candidate is exactly as likely."""
    written: tuple[Writing, ...] = ()
    """What a model generates, for each mask."""


def batches(questions: Iterable[Question], *, positions: int | None = None) -> list[list[Question]]:
    """Questions of about one length together, at most about `positions` positions a batch, padding included; at least
    one question. A function of the questions alone: their order plays no part. Default: POSITIONS.
    """
    ordered = sorted(questions, key=lambda question: (question.positions, question.item.id))
    return [ordered[one] for one in cut([question.positions for question in ordered], positions=positions)]


def cut(lengths: Sequence[int], *, positions: int | None = None) -> list[slice]:
    """The batches of questions of these ascending lengths."""
    most = POSITIONS if positions is None else positions
    starts: list[int] = []
    for number, length in enumerate(lengths):
        # The longest is the last one.
        if not starts or (number + 1 - starts[-1]) * length > most:
            starts.append(number)
    return [slice(first, last) for first, last in zip(starts, [*starts[1:], len(lengths)], strict=True)]


def answer(model: GLM | Classifier, tokenizer: Tokenizer, batch: Sequence[Question]) -> list[Answer]:
    """The answers to the questions of a batch, which for a classifier have no mask.

    Candidates of equal tokens are computed once and are equally likely. Raises ValueError when the model's weights are
    not finite.
    """
    marks = layout.Marks(tokenizer.special.sop, tokenizer.special.eop, tokenizer.special.pad)
    if isinstance(model, Classifier):
        return [_answer(*pair) for pair in zip(batch, _classes(model, batch, marks), strict=True)]
    if batch[0].generation:
        return _texts_of(model, tokenizer, batch, marks)
    found: dict[int, Rated] = {}
    by_way: dict[tuple[Callable[..., Sequence[Rated]], bool], list[int]] = {}
    for row, question in enumerate(batch):
        by_way.setdefault((_way(question), question.count_end), []).append(row)
    for (way, _), rows in by_way.items():
        rated = way(model, [batch[row] for row in rows], marks, tokenizer.vocab_size)
        found |= dict(zip(rows, rated, strict=True))
    return [_answer(question, found[row]) for row, question in enumerate(batch)]


def _texts_of(model: GLM, tokenizer: Tokenizer, batch: Sequence[Question], marks: layout.Marks) -> list[Answer]:
    """What is generated; and how likely the right texts are, which need not be written to be judged by that."""
    written = write(model, tokenizer, batch)
    rated = rate_targets(model, batch, marks, tokenizer.vocab_size)
    return [
        Answer(
            logprobs=logprobs,
            tokens=tuple(len(tokens) + max(len(one.pieces), 1) for tokens in one.candidates),
            choice=None,
            is_tied=False,
            written=texts,
        )
        for one, texts, logprobs in zip(batch, written, rated, strict=True)
    ]


class Rated(NamedTuple):
    """How likely the candidates of a question are."""

    logprobs: np.ndarray
    """float64 [candidates], in nats."""
    is_greedy: bool = False
    """Whether each token of the first candidate is the likeliest one, where that was looked at."""


def _way(question: Question) -> Callable[..., Sequence[Rated]]:
    if question.windows:
        return _windows
    if question.kind == "read":
        return _texts
    return _first_tokens if question.kind == "choose" and question.is_single else _candidates


@torch.inference_mode()
def _classes(model: Classifier, questions: Sequence[Question], marks: layout.Marks) -> Sequence[Rated]:
    """All texts in packed rows, which a head reads at their `[CLS]`."""
    device = model.out.weight.device
    batch = lay_out_questions(questions, marks, width=row_width(device))
    example = {name: torch.from_numpy(array).to(device) for name, array in batch.example.arrays().items()}
    with evaluating(model):
        logprobs_QK = model(example, torch.from_numpy(batch.asked.at).to(device)).double().cpu().numpy()
    check_finite(model, [float(logprobs_QK.sum())])
    return [Rated(row_K) for row_K in logprobs_QK]


@torch.inference_mode()
def _first_tokens(model: GLM, questions: Sequence[Question], marks: layout.Marks, vocab_size: int) -> Sequence[Rated]:
    """Candidates of one token each are compared where the blank begins: one pass over the context and `[sop]`."""
    contexts = [question.prompt.tokens for question in questions]
    begins = [piece_inputs([marks.sop], int(question.prompt.mask_positions[0])) for question in questions]
    with evaluating(model):
        session = Session(model, contexts, capacity=0, use_cache=False)
        logits_BV = session.feed(begins)
    most = max(len(one.candidates) for one in questions)
    asked_BK = np.zeros((len(questions), most), np.int64)
    for row, one in enumerate(questions):
        asked_BK[row, : len(one.candidates)] = np.concatenate(one.candidates)
    logprobs_BK = target_logprobs(logits_BV, torch.from_numpy(asked_BK).to(logits_BV.device), known=vocab_size)
    check_finite(model, [float(logprobs_BK.sum())])
    found_BK = logprobs_BK.double().cpu().numpy()
    return [Rated(row_K[: len(one.candidates)]) for row_K, one in zip(found_BK, questions, strict=True)]


def _candidates(model: GLM, questions: Sequence[Question], marks: layout.Marks, vocab_size: int) -> Sequence[Rated]:
    """Candidates of several tokens share their context, which is read once: for COPA in 0.77 of the CPU time of rows of
    their own (`benchmarks/evaluate.py`).
    """
    unlike = [_unlike(question) for question in questions]
    scores = score_tokens(
        model,
        [question.prompt for question in questions],
        [[[one.candidates[number]] for number in first] for one, (first, _) in zip(questions, unlike, strict=True)],
        marks=marks,
        vocab_size=vocab_size,
        count_end=questions[0].count_end,
    )
    return [
        Rated(np.array([score.logprob for score in several])[back], several[0].greedy)
        for several, (_, back) in zip(scores, unlike, strict=True)
    ]


@torch.inference_mode()
def _texts(model: GLM, questions: Sequence[Question], marks: layout.Marks, vocab_size: int) -> Sequence[Rated]:
    """Every candidate in a row of its own behind its context, which for a text that is read is two tokens: all of them
    in one pass, without a cache, laid out at once. The vocabulary is projected once for tokens that follow the same.

    Shapes: M predicted tokens, S states that predict them, K tokens of one state at most.
    """
    unlike = [_unlike(question) for question in questions]
    rows = [
        (one, one.candidates[number]) for one, (first, _) in zip(questions, unlike, strict=True) for number in first
    ]
    example = _laid_out(rows, marks)
    device = model.token_embedding.weight.device
    names = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
    inputs = [torch.from_numpy(getattr(example, name)).to(device) for name in names]
    at_M = np.flatnonzero(example.loss_mask)
    first_S, state_M, nth_M = states(rows)
    targets_SK = np.zeros((len(first_S), nth_M.max() + 1), np.int64)
    targets_SK[state_M, nth_M] = example.targets.reshape(-1)[at_M]
    logprobs = []
    with evaluating(model):
        x_SD = model.hidden(*inputs, at=torch.from_numpy(at_M[first_S]).to(device))
        size = max(_LOGITS // vocab_size, 1)
        for x_D, targets_K in zip(x_SD.split(size), torch.from_numpy(targets_SK).to(device).split(size), strict=True):
            logprobs.append(target_logprobs(model.logits(x_D), targets_K, known=vocab_size).double().cpu().numpy())
    logprobs_M = np.concatenate(logprobs)[state_M, nth_M]
    ends = np.cumsum([len(tokens) + 1 for _, tokens in rows])
    sums = [float(part.sum()) for part in np.split(logprobs_M, ends[:-1])]
    check_finite(model, sums)
    found = iter(sums)
    return [Rated(np.array([next(found) for _ in first])[back]) for first, back in unlike]


def _windows(model: GLM, questions: Sequence[Question], marks: layout.Marks, vocab_size: int) -> Sequence[Rated]:
    """Texts of any length: each token is predicted once, in windows as long as the model, the first one included. The
    windows of all texts go through the model together.
    """
    window = model.config.positions - 1  # [sop] takes a place in the blank
    parts: list[list[Scored]] = []
    for question in questions:
        assert question.windows
        mask = question.prompt.tokens[question.prompt.mask_positions[0]]
        parts.append(
            text_windows(
                question.candidates[0],
                cls=int(question.prompt.tokens[0]),
                mask=int(mask),
                marks=marks,
                window=window,
                stride=min(question.windows.stride, window // 2),
                bidirectional=question.windows.bidirectional,
            )
        )
    scores = iter(score_examples(model, [one for part in parts for one in part], vocab_size=vocab_size))
    return [Rated(np.array([sum(next(scores).logprob for _ in part)])) for part in parts]


def states(rows: Sequence[tuple[Question, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of the M predicted tokens, [eop] of each candidate included, one state of the model predicts: those of a
    question that follow the same tokens. A pair of BLiMP needs 79 states for 100 tokens.

    Returns int64 (the first token of each state [S], the state of each token [M], how many before it have this state
    [M]). Of "the cat sat" and "the cats sat": ([0, 1, 2, 3, 6, 7], [0, 1, 2, 3, 0, 1, 4, 5], [0, 0, 0, 0, 1, 1, 0, 0]).
    """
    firsts: list[int] = []
    predicted: list[int] = []  # by each state, so far
    found: list[int] = []
    nths: list[int] = []
    known: dict[tuple[int, bytes], int] = {}
    for question, tokens in rows:
        for end in range(len(tokens) + 1):
            state = known.setdefault((id(question), tokens[:end].tobytes()), len(firsts))
            if state == len(firsts):
                firsts.append(len(found))
                predicted.append(0)
            found.append(state)
            nths.append(predicted[state])
            predicted[state] += 1
    return np.array(firsts), np.array(found), np.array(nths)


def _laid_out(rows: Sequence[tuple[Question, np.ndarray]], marks: layout.Marks) -> layout.Example:
    """A row for each candidate of a question: [B, the longest]."""
    places = np.array([int(one.prompt.mask_positions[0]) for one, _ in rows])
    texts = [
        np.concatenate([one.prompt.tokens[:place], tokens, one.prompt.tokens[place + 1 :]])
        for (one, tokens), place in zip(rows, places, strict=True)
    ]
    batch = layout.Ragged(
        tokens=np.concatenate(texts),
        offsets=np.cumsum([0, *map(len, texts)]),
        spans=np.stack((places, places + [len(tokens) for _, tokens in rows]), axis=1),
        span_offsets=np.arange(len(rows) + 1),
        mask_ids=np.array([one.prompt.tokens[place] for (one, _), place in zip(rows, places, strict=True)]),
        objective_ids=np.zeros(len(rows), np.int64),
    )
    return layout.expand(batch, np.arange(len(rows) + 1), width=max(map(len, texts)) + 2, marks=marks)


def _unlike(question: Question) -> tuple[list[int], list[int]]:
    """(numbers of the candidates that are unlike those before them, for each candidate its place among these)."""
    places: dict[bytes, int] = {}
    back = [places.setdefault(tokens.tobytes(), len(places)) for tokens in question.candidates]
    return [back.index(place) for place in range(len(places))], back


def _answer(question: Question, rated: Rated) -> Answer:
    logprobs = rated.logprobs
    tokens = [len(tokens) + question.count_end for tokens in question.candidates] or [0] * len(logprobs)
    rating = logprobs / tokens if question.kind == "write" else logprobs
    best = np.flatnonzero(rating == rating.max())
    is_tied = len(best) > 1
    choice: int | None = int(best[0])
    if question.kind == "write":
        is_written = rated.is_greedy if len(logprobs) == 1 else choice == 0
        choice = int(is_written) if question.has_labels else 0 if is_written else None
    elif question.kind == "read" and is_tied:
        choice = None
    return Answer(logprobs=tuple(logprobs.tolist()), tokens=tuple(tokens), choice=choice, is_tied=is_tied)
