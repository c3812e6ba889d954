"""The feed of fine-tuning: in each train worker questions become micro-batches of packed rows.

    question    context with a mask, candidates
    segments    one with any candidate where each is one token and its end does not count, else one for each candidate;
                for a classification head its text
    rows        whole segments, one question after the other, laid out as in pretraining
    choices     where the candidates' tokens are predicted, or where the head reads: at [CLS]

Its whole state is the step: which questions a step asks follows from the seed and the step alone, so a resumed run, and
one with another number of workers, is asked the same.
"""

import bisect
import functools
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from glm_model.layout import Example, Marks, Ragged, expand
from pipelines import keyed
from pipelines.feed.micro_batches import Step
from pipelines.questions.question import Question
from pipelines.ragged import offsets_of

_ORDER = 401
_WIDTH = 512  # of rows, where nobody says how wide they may be
_MULTIPLE = 64  # of the rows' width: few shapes


@dataclass(frozen=True)
class Asked:
    """The arrays behind `glm_model.candidates.Choices`, int64. For a classification head `at` are the places of the
    texts' `[CLS]` [Q], and there are no candidates.
    """

    at: np.ndarray
    targets: np.ndarray
    candidate: np.ndarray
    question: np.ndarray
    place: np.ndarray
    gold: np.ndarray


@dataclass(frozen=True)
class QuestionBatch:
    """A micro-batch of questions."""

    example: Example
    asked: Asked
    tokens: int
    """Tokens of the segments, before the layout."""
    fingerprint: int

    @property
    def counts(self) -> np.ndarray:
        """Questions, int64 [1]."""
        return np.array([len(self.asked.gold)])


@dataclass(frozen=True)
class QuestionPlan:
    """Which questions belong to which micro-batch of which step: each once an epoch, in a new order each time."""

    questions: int
    """How many there are."""
    step_questions: int
    micro_questions: int
    seed: int

    @property
    def micro_batches(self) -> int:
        """Micro-batches of a step."""
        return -(-self.step_questions // self.micro_questions)

    def step(self, step: int) -> np.ndarray:
        """Numbers of the questions of a step, [step_questions]; steps go on through the ends of epochs."""
        at = np.arange(step * self.step_questions, (step + 1) * self.step_questions)
        epoch, place = np.divmod(at, self.questions)
        parts = [_order(self.seed, one, self.questions)[place[epoch == one]] for one in np.unique(epoch).tolist()]
        return np.concatenate(parts)

    def micro_batch(self, step: int, index: int) -> np.ndarray:
        return self.step(step)[index * self.micro_questions : (index + 1) * self.micro_questions]


@functools.lru_cache(maxsize=2)  # each micro-batch of a step asks for it
def _order(seed: int, epoch: int, questions: int) -> np.ndarray:
    return np.argsort(keyed.fold(seed, _ORDER, epoch, np.arange(questions)), kind="stable")


def question_steps(
    questions: Sequence[Question],
    plan: QuestionPlan,
    marks: Marks,
    *,
    start: int,
    stop: int,
    rank: int,
    world: int,
    width: int = _WIDTH,
) -> Iterator[Step[QuestionBatch]]:
    """The steps start .. stop - 1 of one rank, each laid out when it is asked for, in rows of at most `width`."""
    for step in range(start, stop):
        indices = range(rank, plan.micro_batches, world)
        own = [(index, [questions[n] for n in plan.micro_batch(step, index).tolist()]) for index in indices]
        yield Step(step, [(index, lay_out_questions(some, marks, width=width)) for index, some in own])


def segment_sizes(question: Question) -> list[int]:
    """Positions of each segment that `lay_out_questions` makes of a question."""
    context = len(question.prompt.tokens)
    if not question.has_mask:
        return [context]
    answers = question.candidates[:1] if question.is_single else question.candidates
    return [context + len(answer) + len(question.prompt.mask_positions) for answer in answers]


def lay_out_questions(questions: Sequence[Question], marks: Marks, *, width: int = _WIDTH) -> QuestionBatch:
    """Questions as packed rows; all of them have masks, or none has. width: the most positions of a row, where no
    segment is longer.
    """
    if not questions[0].has_mask:
        return _lay_out_texts(questions, marks, width)
    segments: list[np.ndarray] = []
    spans: list[tuple[int, int]] = []
    counts: list[int] = []
    masks: list[int] = []
    owners: list[tuple[int, list[int]]] = []  # question, the candidates that the segment stands for
    for number, question in enumerate(questions):
        all_of_them = [*range(len(question.candidates))]
        stands_for = [all_of_them] if question.is_single else [[n] for n in all_of_them]
        for candidates in stands_for:
            segment, own = _answered(question, candidates[0])
            segments.append(segment)
            spans += own
            counts.append(len(own))
            masks.append(int(question.prompt.tokens[question.prompt.mask_positions[0]]))
            owners.append((number, candidates))
    example = _packed(segments, np.array(spans), np.array(counts), np.array(masks), marks, width)
    asked = _asked(example, questions, owners)
    return QuestionBatch(example, asked, sum(map(len, segments)), fingerprint(questions))


def _answered(question: Question, candidate: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """(the context with a candidate in place of its masks, where the candidate stands in it)."""
    context, parts, spans = question.prompt.tokens, [], []
    last = length = 0
    for place, answer in zip(question.prompt.mask_positions.tolist(), question.of_each_mask(candidate), strict=True):
        parts += [context[last:place], answer]
        begin = length + place - last
        length, last = begin + len(answer), place + 1
        spans.append((begin, length))
    return np.concatenate([*parts, context[last:]]), spans


def _lay_out_texts(questions: Sequence[Question], marks: Marks, width: int) -> QuestionBatch:
    texts = [question.prompt.tokens for question in questions]
    none = np.zeros(len(texts), np.int64)
    example = _packed(texts, np.empty((0, 2), np.int64), none, none, marks, width)
    begins = np.flatnonzero((example.position_ids == 0) & (example.segment_ids >= 0))
    nothing = np.empty(0, np.int64)
    asked = Asked(begins, nothing, nothing, nothing, nothing, _gold(questions))
    return QuestionBatch(example, asked, sum(map(len, texts)), fingerprint(questions))


def _packed(
    segments: list[np.ndarray], spans: np.ndarray, counts: np.ndarray, masks: np.ndarray, marks: Marks, width: int
) -> Example:
    """Whole segments in rows. spans [S, 2] and their counts [N]: what of each segment is blanked."""
    lengths = np.array([len(segment) for segment in segments])
    sizes = lengths + 2 * counts
    row_offsets = _rows(sizes, max(width, int(sizes.max())))
    needed = int(max(sizes[a:b].sum() for a, b in itertools.pairwise(row_offsets.tolist())))
    batch = Ragged(
        np.concatenate(segments), offsets_of(lengths), spans, offsets_of(counts), masks, np.zeros(len(masks), np.int64)
    )
    return expand(batch, row_offsets, width=-(-needed // _MULTIPLE) * _MULTIPLE, marks=marks)


def _rows(sizes: np.ndarray, most: int) -> np.ndarray:
    """Offsets of the rows: as few of `most` positions as hold the segments in their order, and as narrow as they may be
    then. All rows of a batch are as wide as the widest, so what is wasted is what the others have less.
    """
    count = len(_filled(sizes, most))
    widths = range(int(sizes.max()), most)
    least = bisect.bisect_left(widths, True, key=lambda width: len(_filled(sizes, width)) <= count)
    return _filled(sizes, widths.start + least)


def _filled(sizes: np.ndarray, width: int) -> np.ndarray:
    """Offsets of rows that take segments as long as they fit."""
    offsets, filled = [0], 0
    for number, size in enumerate(sizes.tolist()):
        if filled + size > width:
            offsets.append(number)
            filled = 0
        filled += size
    return np.array([*offsets, len(sizes)])


def _asked(example: Example, questions: Sequence[Question], owners: list[tuple[int, list[int]]]) -> Asked:
    """Where the candidates are predicted, from the places of the pieces."""
    flat_mask, flat_block = example.loss_mask.ravel(), example.block_position_ids.ravel()
    targets = example.targets.ravel()
    predicted = np.flatnonzero(flat_mask)
    pieces = iter(np.split(predicted, np.flatnonzero(flat_block[predicted] == 1)[1:]))  # each begins at its [sop]
    at, wanted, candidate, question, place = [], [], [], [], []
    for number, candidates in owners:
        own = [next(pieces) for _ in questions[number].prompt.mask_positions]
        for one in candidates:
            tokens, count_end = questions[number].candidates[one], questions[number].count_end
            several = zip(own, questions[number].of_each_mask(one), strict=True)
            positions = np.concatenate([piece[: len(part) + count_end] for piece, part in several])
            at.append(positions)
            wanted.append(tokens.astype(np.int64) if questions[number].is_single else targets[positions])
            candidate.append(np.full(len(positions), len(question)))
            question.append(number)
            place.append(one)
    at, wanted, candidate = (np.concatenate(parts).astype(np.int64) for parts in (at, wanted, candidate))
    question, place = (np.array(part, np.int64) for part in (question, place))
    return Asked(at, wanted, candidate, question, place, _gold(questions))


def _gold(questions: Sequence[Question]) -> np.ndarray:
    """Numbers of the candidates that are learned, 0 where none is known."""
    return np.array([question.learned for question in questions], np.int64)


def fingerprint(questions: Sequence[Question]) -> int:
    """64-bit identity of what is asked: contexts, candidates and right answers, whatever their order."""
    total = 0
    for question in questions:
        digest = hashlib.blake2b(question.prompt.tokens.tobytes(), digest_size=8)
        for candidate in question.candidates:
            digest.update(candidate.astype(np.int64).tobytes() + b"|")
        digest.update(str((question.gold, *question.pieces) if question.pieces else question.gold).encode())
        total += int.from_bytes(digest.digest(), "little")
    return total & keyed.MASK64
