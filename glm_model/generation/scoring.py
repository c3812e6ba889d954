"""How likely a model finds given answers or a whole text: log p in nats, summed or per token.

Candidates of one text share its context: it goes through the model once, and each candidate costs its own tokens. The
vocabulary projection runs on the scored positions only, in chunks.

Shapes: M scored positions, D width, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from glm_model import layout
from glm_model.checks import check_finite
from glm_model.config import MORE_POSITIONS
from glm_model.generation.prompts import check_context, listed, naming_text, read_prompts, resolve_order
from glm_model.generation.session import Session, evaluating, known_ids
from glm_model.ids import as_ids, check_known
from glm_model.logprobs import target_logprobs
from glm_model.model import GLM

if TYPE_CHECKING:
    from glm_model.tokenizer import Tokenizer

_CHUNK = 1 << 24  # logits at a time: 64 MiB in fp32
_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class Score:
    """How likely an answer is."""

    logprob: float
    """Sum over the scored tokens, in nats."""
    tokens: int
    """Number of scored tokens, with [eop] where it counts."""
    greedy: bool
    """Whether each of them is the most probable token, given those before it."""

    def normalised(self, power: float = 1.0) -> float:
        """logprob / tokens ** power: the sum for power 0, the mean for 1."""
        return self.logprob / self.tokens**power


class Scored(NamedTuple):
    """An example and its scored positions: a context with what is written for it, and bool [T]."""

    example: layout.Example
    counted: np.ndarray


def score(
    model: GLM,
    tokenizer: Tokenizer,
    text: str,
    candidates: Sequence[str | Sequence[str]],
    *,
    count_end: bool = True,
    order: str | Sequence[int] = "left_to_right",
) -> list[Score]:
    """log p(candidate | text) for several ways to fill the masks of a text, in one pass.

    candidates: each is the answer of the text's mask, or a list with one per mask from left to right; it gets the ids
    that it has in the filled text (`Tokenizer.encode_answers`). count_end: whether the answer's [eop] counts, as in the
    authors' cloze tasks; without it an answer never scores above one that it begins with. order: as for `fill`. Raises
    ValueError when the text is empty, has no mask or is too long, on an empty candidate, and when the model's weights
    are not finite.
    """
    return score_batch(model, tokenizer, [text], [candidates], count_end=count_end, order=order)[0]


def score_batch(
    model: GLM,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    candidates: Sequence[Sequence[str | Sequence[str]]],
    *,
    count_end: bool = True,
    order: str | Sequence[int] = "left_to_right",
) -> list[list[Score]]:
    """`score` for several texts at once; candidates[i] are those of texts[i]. Memory grows with their number."""
    special, answers, texts = tokenizer.special, [], listed(texts, "texts", "strings")
    prompts = read_prompts(tokenizer, texts, eos=True)
    for index, several in enumerate(each := listed(candidates, "candidates", "lists of answers, one for each text")):
        text = texts[index] if index < len(texts) else ""  # `score_tokens` says that there are too many
        with naming_text(index, len(each)):
            answers.append([_encoded(tokenizer, text, one) for one in listed(several, "candidates", "answers")])
    return score_tokens(
        model,
        prompts,
        answers,
        marks=layout.Marks(special.sop, special.eop, special.pad),
        count_end=count_end,
        vocab_size=tokenizer.vocab_size,
        order=order,
    )


@torch.inference_mode()
def score_tokens(
    model: GLM,
    prompts: Sequence[layout.Prompt],
    candidates: Sequence[Sequence[Sequence[np.ndarray]]],
    *,
    marks: layout.Marks,
    count_end: bool = True,
    given: Sequence[np.ndarray] | None = None,
    vocab_size: int | None = None,
    order: str | Sequence[int] = "left_to_right",
) -> list[list[Score]]:
    """Scores of candidates[prompt][candidate][mask]: tokens without [eop], masks from left to right.

    given: for each prompt, tokens that precede every candidate in the blank that is filled first, and are not scored: a
    text to be continued. vocab_size: ids from here on have no probability; None: all rows of the embedding have one.
    count_end, order: as for `score`. Raises ValueError on a text or an answer that is too long or empty, on ids that
    the model does not have, and when its weights are not finite.
    """
    if not prompts and not candidates:
        return []
    if len(candidates) != len(prompts) or not all(candidates):
        sizes = [len(several) for several in candidates]
        raise ValueError(f"{len(prompts)} texts and {sizes} candidates: give each text at least one candidate")
    given = [_NOTHING] * len(prompts) if given is None else given
    limit = known_ids(model, vocab_size)
    scored: list[list[Scored]] = []
    for index, (prompt, several, before) in enumerate(zip(prompts, candidates, given, strict=True)):
        with naming_text(index, len(prompts)):
            for answer in (answer for answers in several for answer in answers):
                check_known(as_ids(answer, "an answer"), limit, "an answer")
            places = resolve_order(order, len(prompt.mask_positions))
            check_context(model.config, len(prompt.tokens))
            scored.append([_scored(prompt, answers, before, places, marks, count_end) for answers in several])
            for one in scored[-1]:
                _check_answer(model, one.example)
    shared = [len(prompt.tokens) + len(before) for prompt, before in zip(prompts, given, strict=True)]
    starts = [start for start, several in zip(shared, scored, strict=True) for _ in several]
    flat = [one for several in scored for one in several]
    with evaluating(model):
        x_BLD = _read(model, prompts, scored, shared)
        scores = iter(_reduce(model, x_BLD, flat, starts, vocab_size))
    return [[next(scores) for _ in several] for several in scored]


def _read(
    model: GLM, prompts: Sequence[layout.Prompt], scored: Sequence[Sequence[Scored]], shared: Sequence[int]
) -> Tensor:
    """Hidden states of all candidates, one row each, from position shared[prompt] on. What lies before that, the
    context and what is given, is the same for the candidates of a prompt and is read once.
    """
    contexts = [prompt.tokens for prompt in prompts]
    capacity = max(len(one.example.tokens) for several in scored for one in several)
    session = Session(model, contexts, capacity=capacity)
    if any(end > len(context) for end, context in zip(shared, contexts, strict=True)):
        first = [several[0].example for several in scored]
        session.append([_inputs(one, len(c), end) for one, c, end in zip(first, contexts, shared, strict=True)])
    session.select([row for row, several in enumerate(scored) for _ in several])
    return session.append(
        [_inputs(one.example, start) for start, several in zip(shared, scored, strict=True) for one in several]
    )


@torch.inference_mode()
def score_examples(
    model: GLM, examples: Sequence[Scored], *, vocab_size: int | None = None, positions: int = 1 << 13
) -> list[Score]:
    """The score of each example by itself, in batches of at most about `positions` positions.

    vocab_size and errors as for `score_tokens`.
    """
    scores: list[Score] = []
    with evaluating(model):
        for part in _batches(examples, positions):
            width = max(len(one.example.tokens) for one in part)
            names = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
            inputs = np.zeros((len(names), len(part), width), np.int64)
            inputs[names.index("segment_ids")] = -1
            for row, one in enumerate(part):
                check_context(model.config, int(one.example.context_end[0]))
                _check_answer(model, one.example)
                inputs[:, row, : len(one.example.tokens)] = [getattr(one.example, name) for name in names]
            x_BLD = model.hidden(*torch.from_numpy(inputs).to(model.token_embedding.weight.device))
            scores += _reduce(model, x_BLD, part, [0] * len(part), vocab_size)
    return scores


def _batches(examples: Sequence[Scored], positions: int) -> Iterator[list[Scored]]:
    """Consecutive examples, as many at a time as fit into `positions` when padded to the longest; at least one."""
    part: list[Scored] = []
    longest = 0
    for one in examples:
        longest = max(longest, len(one.example.tokens))
        if part and longest * (len(part) + 1) > positions:
            yield part
            part, longest = [], len(one.example.tokens)
        part.append(one)
    if part:
        yield part


def score_text(model: GLM, windows: Sequence[Scored], *, vocab_size: int | None = None) -> Score:
    """log p of a whole text, token by token: the sum over its `text_windows`. Divided by -ln 2 and the text's bytes it
    gives bits per byte. vocab_size and errors as for `score_tokens`.
    """
    parts = score_examples(model, windows, vocab_size=vocab_size)
    return Score(
        sum(part.logprob for part in parts), sum(part.tokens for part in parts), all(part.greedy for part in parts)
    )


def text_windows(
    tokens: np.ndarray,
    *,
    cls: int,
    mask: int,
    marks: layout.Marks,
    window: int,
    stride: int | None = None,
    bidirectional: bool = False,
    given: int = 0,
    count_end: bool = False,
) -> list[Scored]:
    """A text of any length as windows of at most `window` tokens, each [CLS] + context + mask and the rest to predict.

    The first window predicts all but its first `given` tokens. Each later one scores the next `stride` tokens (default:
    `window`, no overlap) and sees those before them: in the blank, as tokens that are predicted but not scored, or with
    bidirectional in the context. Without it the first `given` tokens of a later window, too, stand in its context; if
    windows do not overlap they are never scored (nor do the authors score them, who give 1). count_end: whether [eop]
    counts at the end of the text.

    window 6, stride 2, given 1, text abcdefghij (capitals are scored, after | stands what is predicted):
        first window            a|BCDEF
        then                    c|defGH     bidirectional  cdef|GH
        then                    e|fghIJ                    efgh|IJ

    Raises ValueError on a text that leaves nothing to score, and on sizes that do not fit each other.
    """
    stride = window if stride is None else stride
    tokens = as_ids(tokens, "tokens")
    if not 0 < stride <= window or not 0 <= given < window:
        sizes = f"window={window}, stride={stride}, given={given}"
        raise ValueError(f"{sizes}: use 0 < stride <= window and given < window")
    if len(tokens) <= given:
        raise ValueError(f"a text of {len(tokens)} tokens, of which the first {given} are given, leaves none to score")
    windows, done = [], 0  # done: tokens that need no more scoring
    while done < len(tokens):
        end = min(done + stride if done else window, len(tokens))
        start = done + stride - window if done else 0
        first = done if bidirectional and done else min(start + given, end)  # the first one predicted
        if first < end:
            context = np.concatenate(([cls], tokens[start:first], [mask]))
            prompt = layout.Prompt(context, np.array([len(context) - 1]))
            example = layout.layout_answers(prompt, [tokens[first:end]], marks=marks)
            counted = example.loss_mask.astype(bool)
            counted[: len(context) + max(done - first, 0)] = False
            counted[-1] = count_end and end == len(tokens)
            windows.append(Scored(example, counted))
        done = end
    return windows


def _scored(
    prompt: layout.Prompt,
    answers: Sequence[np.ndarray],
    given: np.ndarray,
    places: Sequence[int],
    marks: layout.Marks,
    count_end: bool,
) -> Scored:
    """A candidate laid out. places: the masks in the order in which they are filled."""
    filled = [as_ids(answer, f"the answer of mask {index}") for index, answer in enumerate(answers)]
    if len(given) and len(filled) == len(places) and len(filled[places[0]]):
        filled[places[0]] = np.concatenate((given, filled[places[0]]))
    example = layout.layout_answers(prompt, filled, marks=marks, order=np.array(places))
    counted = example.loss_mask.astype(bool)
    counted[len(prompt.tokens) : len(prompt.tokens) + len(given)] = False
    if not count_end:
        counted &= ~np.append(example.block_position_ids[1:] == 1, True)  # [eop] stands before the next piece's [sop]
    return Scored(example, counted)


def _encoded(tokenizer: Tokenizer, text: str, answer: Any) -> list[np.ndarray]:
    parts = [answer] if isinstance(answer, str) else listed(answer, "a candidate", "strings, one for each mask")
    for part in parts:
        if not isinstance(part, str):
            raise ValueError(f"a candidate: expected one string for each mask, got {part!r:.60}")
    return tokenizer.encode_answers(text, parts)


def _check_answer(model: GLM, example: layout.Example) -> None:
    longest = int(example.block_position_ids.max())
    if longest > model.config.positions:
        raise ValueError(
            f"an answer of {longest - 1:,} tokens takes {longest:,} places in its blank, and the model has "
            f"{model.config.positions:,}. Shorten it, or use a model with more positions ({MORE_POSITIONS})"
        )


def _inputs(example: layout.Example, start: int, end: int | None = None) -> np.ndarray:
    """What the model reads from position `start` on, [3, n]."""
    part = slice(start, end)
    return np.stack((example.tokens[part], example.position_ids[part], example.block_position_ids[part]))


def _reduce(
    model: GLM, x_BLD: Tensor, scored: Sequence[Scored], starts: Sequence[int], vocab_size: int | None
) -> list[Score]:
    """The score of each example b, of whose positions row b of x holds those from starts[b] on."""
    places = [np.flatnonzero(one.counted) for one in scored]
    row = torch.from_numpy(np.repeat(np.arange(len(scored)), [len(place) for place in places]))
    column = torch.from_numpy(np.concatenate([place - start for place, start in zip(places, starts, strict=True)]))
    targets = np.concatenate([one.example.targets[place] for one, place in zip(scored, places, strict=True)])
    targets_M = torch.from_numpy(targets).to(x_BLD.device)
    x_MD = x_BLD[row.to(x_BLD.device), column.to(x_BLD.device)]
    known = known_ids(model, vocab_size)
    check_known(targets.tolist(), known, "what is scored")
    logprobs, greedy = [], []
    size = max(_CHUNK // model.config.vocab_size, 1)
    for x_D, target in zip(x_MD.split(size), targets_M.split(size), strict=True):
        logits_V = model.logits(x_D)
        best = logits_V[:, :known].amax(1)
        greedy.append((logits_V.gather(1, target[:, None])[:, 0] == best).cpu())
        logprobs.append(target_logprobs(logits_V, target[:, None], known=known)[:, 0].double().cpu())
    bounds = np.cumsum([0, *(len(place) for place in places)])
    logprob_M, greedy_M = torch.cat(logprobs).numpy(), torch.cat(greedy).numpy()
    check_finite(model, [float(logprob_M.sum())])
    return [
        Score(float(logprob_M[a:b].sum()), int(b - a), bool(greedy_M[a:b].all())) for a, b in itertools.pairwise(bounds)
    ]
