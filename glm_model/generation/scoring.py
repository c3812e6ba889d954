"""How likely a model finds given answers or a whole text: log p, in nats, summed or per token.

Candidates of one text share its context: the context goes through the model once, and each candidate costs its own
tokens. The vocabulary projection runs on the scored positions only, some at a time.

Shapes: M scored positions, D width, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
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
from glm_model.model import GLM

if TYPE_CHECKING:
    from glm_model.tokenizer import Tokenizer

_CHUNK = 1 << 24  # logits at a time: 64 MiB in fp32
_NOTHING = np.empty(0, np.int64)


@dataclass(frozen=True)
class Score:
    """What the model makes of an answer."""

    logprob: float
    """Sum over the scored tokens, nats."""
    tokens: int
    """How many were scored, [eop] included where it counts."""
    greedy: bool
    """Whether each of them is the most probable one, given those before it."""

    def normalised(self, power: float = 1.0) -> float:
        """logprob / tokens ** power; 0: the sum, 1: the mean."""
        return self.logprob / self.tokens**power


class Scored(NamedTuple):
    """A context and what is written for it, with the positions to score: an `Example` and a mask [T]."""

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

    candidates: the answer of the text's mask, or one per mask from left to right. Where spaces are tokens an answer
    carries its own leading space (" yes"). count_end: whether each answer's [eop] counts, as in the authors' cloze
    tasks; without it an answer never scores above one that it begins with.
    Raises ValueError when the text is empty, has no mask or is too long, on an empty candidate, and when the model's
    weights are not finite.
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
    special, answers = tokenizer.special, []
    for index, several in enumerate(each := listed(candidates, "candidates", "lists of answers, one for each text")):
        with naming_text(index, len(each)):
            answers.append([_encoded(tokenizer, one) for one in listed(several, "candidates", "answers")])
    return score_tokens(
        model,
        read_prompts(tokenizer, texts, eos=True),
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
    """Scores of candidates[prompt][candidate][mask]: tokens without [eop], from left to right.

    given: per prompt, tokens that precede every candidate in the blank that is filled first and are not scored: a text
    to be continued. vocab_size: ids from here on have no probability; None: all rows of the embedding.
    Raises ValueError on a text or an answer that is too long or empty, on ids that the model has not, and when its
    weights are not finite.
    """
    if not prompts and not candidates:
        return []
    if len(candidates) != len(prompts) or not all(candidates):
        sizes = [len(several) for several in candidates]
        raise ValueError(f"{len(prompts)} texts and {sizes} candidates: give each text at least one candidate")
    given = [_NOTHING] * len(prompts) if given is None else given
    limit = known_ids(model, vocab_size)
    pieces = []
    for index, (prompt, several, before) in enumerate(zip(prompts, candidates, given, strict=True)):
        with naming_text(index, len(prompts)):
            laid_out = partial(_piece, model, prompt, before, marks=marks, count_end=count_end, order=order)
            for part in (part for answers in several for part in answers):
                check_known(as_ids(part, "an answer"), limit, "an answer")
            pieces.append([laid_out(answers) for answers in several])
    flat = [piece for several in pieces for piece in several]
    # Read once per prompt: the context, and [sop] with what is given up to its last token.
    shared = [[0, len(prompt.tokens)] for prompt in prompts]
    for bounds, before in zip(shared, given, strict=True):
        bounds += [bounds[1] + len(before)] if len(before) else [bounds[1]]
    own = [end for (_, _, end), several in zip(shared, pieces, strict=True) for _ in several]
    with evaluating(model):
        capacity = max(len(piece.example.tokens) for piece in flat)
        session = Session(model, [prompt.tokens for prompt in prompts], capacity=capacity)
        if any(map(len, given)):
            first = [several[0].example for several in pieces]
            session.append([_inputs(one, start, end) for one, (_, start, end) in zip(first, shared, strict=True)])
        session.select([row for row, several in enumerate(pieces) for _ in several])
        x_BLD = session.append([_inputs(p.example, start) for p, start in zip(flat, own, strict=True)])
        scores = iter(_reduce(model, x_BLD, flat, own, vocab_size))
    return [[next(scores) for _ in several] for several in pieces]


@torch.inference_mode()
def score_examples(
    model: GLM, pieces: Sequence[Scored], *, vocab_size: int | None = None, positions: int = 1 << 13
) -> list[Score]:
    """Score of each piece by itself, some at a time: at most about `positions` positions in a batch.

    vocab_size and errors as for `score_tokens`.
    """
    device, scores, start = model.token_embedding.weight.device, [], 0
    with evaluating(model):
        while start < len(pieces):
            longest, end = 0, start
            while end < len(pieces):
                longest = max(longest, len(pieces[end].example.tokens))
                if end > start and longest * (end + 1 - start) > positions:
                    break
                end += 1
            part = pieces[start:end]
            width = max(len(piece.example.tokens) for piece in part)
            names = ("tokens", "position_ids", "block_position_ids", "segment_ids", "context_end")
            inputs = np.zeros((len(names), len(part), width), np.int64)
            inputs[names.index("segment_ids")] = -1
            for row, piece in enumerate(part):
                check_context(model.config, int(piece.example.context_end[0]))
                _check_answer(model, piece.example)
                inputs[:, row, : len(piece.example.tokens)] = [getattr(piece.example, name) for name in names]
            x_BLD = model.hidden(*torch.from_numpy(inputs).to(device))
            scores += _reduce(model, x_BLD, part, [0] * len(part), vocab_size)
            start = end
    return scores


def score_text(model: GLM, windows: Sequence[Scored], *, vocab_size: int | None = None) -> Score:
    """log p of a whole text, token by token: its `text_windows`, scored and summed. Divide by -ln 2 and the text's
    bytes for bits per byte. vocab_size and errors as for `score_tokens`.
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
    `window`, no overlap) and sees those before them: written in the blank, or bidirectional, in the context. In the
    former a later window, too, has its first `given` tokens in its context; without overlap they are never scored (nor
    are they by the authors, who give 1). count_end: [eop] counts at the end of the text.
    Raises ValueError on a text that leaves nothing to score, and on sizes that make no windows.
    """
    stride = window if stride is None else stride
    tokens = as_ids(tokens, "tokens")
    if not 0 < stride <= window or not 0 <= given < window:
        given_values = f"window={window}, stride={stride}, given={given}"
        raise ValueError(f"{given_values}: use 0 < stride <= window and given < window")
    if len(tokens) <= given:
        raise ValueError(f"a text of {len(tokens)} tokens, of which the first {given} are given, leaves none to score")
    pieces, done = [], 0
    while done < len(tokens):
        end = min(done + stride if done else window, len(tokens))
        start = done + stride - window if done else 0
        first = done if bidirectional and done else min(start + given, end)
        if first < end:
            context = np.concatenate(([cls], tokens[start:first], [mask]))
            asked = layout.Prompt(context, np.array([len(context) - 1]))
            example = layout.layout_answers(asked, [tokens[first:end]], marks=marks)
            counted = example.loss_mask.astype(bool)
            counted[: len(context) + max(done - first, 0)] = False
            counted[-1] = count_end and end == len(tokens)
            pieces.append(Scored(example, counted))
        done = end
    return pieces


def _piece(
    model: GLM,
    prompt: layout.Prompt,
    given: np.ndarray,
    answers: Sequence[np.ndarray],
    *,
    marks: layout.Marks,
    count_end: bool,
    order: str | Sequence[int],
) -> Scored:
    places = resolve_order(order, len(prompt.mask_positions))
    filled = [as_ids(answer, f"the answer of mask {index}") for index, answer in enumerate(answers)]
    if len(given) and len(filled) == len(places) and len(filled[places[0]]):
        filled[places[0]] = np.concatenate((given, filled[places[0]]))
    example = layout.layout_answers(prompt, filled, marks=marks, order=np.array(places))
    check_context(model.config, len(prompt.tokens))
    _check_answer(model, example)
    counted = example.loss_mask.astype(bool)
    counted[len(prompt.tokens) : len(prompt.tokens) + len(given)] = False
    if not count_end:
        counted &= ~np.append(example.block_position_ids[1:] == 1, True)
    return Scored(example, counted)


def _encoded(tokenizer: Tokenizer, answer: Any) -> list[np.ndarray]:
    parts = [answer] if isinstance(answer, str) else listed(answer, "a candidate", "strings, one for each mask")
    for part in parts:
        if not isinstance(part, str):
            raise ValueError(f"a candidate holds {part!r:.60}, no string; give one string for each mask")
    return [tokenizer.encode(part) for part in parts]


def _check_answer(model: GLM, example: layout.Example) -> None:
    longest = int(example.block_position_ids.max())
    if longest > model.config.positions:
        raise ValueError(
            f"an answer of {longest - 1:,} tokens takes {longest:,} places in its blank, and the model has "
            f"{model.config.positions:,}. Shorten it, or use a model with more positions ({MORE_POSITIONS})"
        )


def _inputs(example: layout.Example, start: int, end: int | None = None) -> np.ndarray:
    """What the model reads from `start` on, [3, n]."""
    part = slice(start, end)
    return np.stack((example.tokens[part], example.position_ids[part], example.block_position_ids[part]))


def _reduce(
    model: GLM, x_BLD: Tensor, pieces: Sequence[Scored], starts: Sequence[int], vocab_size: int | None
) -> list[Score]:
    """Scores of pieces whose positions from starts[b] on are in row b of x."""
    places = [np.flatnonzero(piece.counted) for piece in pieces]
    row = torch.from_numpy(np.repeat(np.arange(len(pieces)), [len(place) for place in places]))
    column = torch.from_numpy(np.concatenate([place - start for place, start in zip(places, starts, strict=True)]))
    targets = [piece.example.targets[place] for piece, place in zip(pieces, places, strict=True)]
    targets_M = torch.from_numpy(np.concatenate(targets)).to(x_BLD.device)
    x_MD = x_BLD[row.to(x_BLD.device), column.to(x_BLD.device)]
    known = known_ids(model, vocab_size)
    check_known((row for target in targets for row in target.tolist()), known, "what is scored")
    logprobs, greedy = [], []
    size = max(_CHUNK // model.config.vocab_size, 1)
    for x_D, target in zip(x_MD.split(size), targets_M.split(size), strict=True):
        logits_V = model.logits(x_D).float()[:, :known]
        chosen = logits_V.gather(1, target[:, None])[:, 0]
        logprobs.append((chosen - logits_V.logsumexp(1)).double().cpu())
        greedy.append((chosen == logits_V.amax(1)).cpu())
    bounds = np.cumsum([0, *(len(place) for place in places)])
    logprob_M, greedy_M = torch.cat(logprobs).numpy(), torch.cat(greedy).numpy()
    check_finite(model, [float(logprob_M.sum())])
    return [
        Score(float(logprob_M[a:b].sum()), int(b - a), bool(greedy_M[a:b].all())) for a, b in itertools.pairwise(bounds)
    ]
