"""Fill the blanks of texts, one after the other, with a key-value cache: each new token costs one position.

Several texts, of any lengths and numbers of blanks, are written side by side. Each gets what it would get alone.

Shapes: B rows (a text has `samples` or `beams` of them), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from glm_model import layout
from glm_model.checks import check_finite
from glm_model.decoding import Decoding
from glm_model.generation.beam_search import beam_search
from glm_model.generation.prompts import check_context, listed, naming_text, read_prompts, resolve_order, spliced
from glm_model.generation.sampling import Limits, Written, choose, draws_for, veto
from glm_model.generation.session import Session, evaluating, known_ids, piece_inputs
from glm_model.ids import check_known
from glm_model.model import GLM

if TYPE_CHECKING:
    from glm_model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Blank:
    """What was written into one mask."""

    text: str
    """Begins with a space where spaces are tokens; never with the "##" of a token inside a word."""
    logprob: float
    """Natural log of the model's own probability (before temperature and filters), the end token included."""
    tokens: tuple[int, ...]
    """Without the end token."""


@dataclass(frozen=True)
class Filled:
    """A text with its blanks filled."""

    parts: tuple[str, ...]
    """The user's text, as it was given, and what stands in place of the masks, in turn (`prompts.spliced`)."""
    blanks: tuple[Blank, ...]
    """In the order of the masks in the text."""

    @property
    def text(self) -> str:
        """The user's text with its masks replaced."""
        return "".join(self.parts)

    @property
    def logprob(self) -> float:
        """The sum over the blanks: log p of all of them, each given those filled before it."""
        return sum(blank.logprob for blank in self.blanks)


def fill(
    model: GLM,
    tokenizer: Tokenizer,
    text: str,
    decoding: Decoding | None = None,
    *,
    order: str | Sequence[int] = "left_to_right",
    **options: Any,
) -> Filled:
    """Fill every [MASK], [sMASK] and [gMASK] of a text; each blank sees those written before it.

    decoding: how blanks are written; its fields can be given by themselves: fill(model, tokenizer, text, max_tokens=8).
    order: "left_to_right", "right_to_left", or the masks' indices in the order in which to fill them. Raises ValueError
    when the text is empty, has no mask or is too long for the model, on bad values, and when the model's weights are
    not finite; TypeError for options that `Decoding` does not have.
    """
    if not isinstance(text, str):
        raise ValueError(f"text: expected a string, got {type(text).__name__}. fill_batch takes a list of texts")
    decoding = replace(_checked(decoding), **options)
    if decoding.samples > 1:
        raise ValueError(f"fill gives one version of a text, not samples={decoding.samples}: use fill_batch")
    return fill_batch(model, tokenizer, [text], decoding, order=order)[0][0]


def fill_batch(
    model: GLM,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    decoding: Decoding | None = None,
    *,
    order: str | Sequence[int] = "left_to_right",
) -> list[list[Filled]]:
    """`fill` for several texts at once: `decoding.samples` filled versions of each.

    Faster than one at a time (`benchmarks/generate.py`), with equal results. Memory grows with the number of texts:
    hand in some tens at a time. order: as for `fill`, the same for every text. Control tokens ([CLS], masks, [UNK],
    ...) are never written, however probable; [eop] and eos end a blank. Raises ValueError as `fill` does; it names the
    text that is wrong.
    """
    decoding = _checked(decoding)
    special, texts = tokenizer.special, listed(texts, "texts", "strings")
    ends = (special.eop, special.eos)
    banned = tuple(sorted(tokenizer.control_ids.difference(ends)))
    prompts = read_prompts(tokenizer, texts)
    limits = Limits(sop=special.sop, stop=ends, banned=banned, vocab_size=tokenizer.vocab_size)
    written = fill_tokens(model, prompts, decoding, limits, order=order)
    return [
        [_filled(tokenizer, text, sample) for sample in samples] for text, samples in zip(texts, written, strict=True)
    ]


@torch.inference_mode()
def fill_tokens(
    model: GLM,
    prompts: Sequence[layout.Prompt],
    decoding: Decoding,
    limits: Limits,
    *,
    order: str | Sequence[int] = "left_to_right",
    use_cache: bool = True,
) -> list[list[list[Written]]]:
    """What is written into each mask, as [prompt][sample][mask], masks in text order.

    order: as for `fill`. use_cache=False recomputes everything for each token, as the reference for the cache.
    Raises ValueError on a text or a blank that is too long for the model, on ids that it does not have, and when its
    weights are not finite.
    """
    if not prompts:
        return []
    orders = []
    for index, prompt in enumerate(prompts):
        with naming_text(index, len(prompts)):
            orders.append(resolve_order(order, len(prompt.mask_positions)))
            _check_room(model, prompt, decoding)
    known = known_ids(model, limits.vocab_size)
    check_known(limits.stop, known, "stop")
    banned = tuple(token for token in limits.banned if 0 <= token < known)
    limits = replace(limits, banned=banned, vocab_size=known)
    # The last token of a row's last blank is not fed.
    longest = max(len(p.tokens) + len(p.mask_positions) * (decoding.max_tokens + 1) - 1 for p in prompts)
    by_length = np.argsort([len(prompt.tokens) for prompt in prompts], kind="stable").tolist()  # neighbours are alike
    prompts, orders = [prompts[index] for index in by_length], [orders[index] for index in by_length]
    with evaluating(model):
        session = Session(model, [prompt.tokens for prompt in prompts], capacity=longest, use_cache=use_cache)
        if decoding.beams == 1:
            written = _sample(session, prompts, orders, decoding, limits)
        else:
            written = [[blanks] for blanks in beam_search(session, prompts, orders, decoding, limits)]
    return [written[place] for place in np.argsort(by_length)]


class _Row:
    """One sample of one text. `inputs` is what it reads next; None once it is finished."""

    def __init__(self, prompt: layout.Prompt, order: Sequence[int], draws: np.random.Generator, sop: int):
        self.prompt, self.draws, self.sop = prompt, draws, sop
        self.waiting = list(order)
        self.written: dict[int, Written] = {}
        self.tokens: list[int] = []
        self.logprob = 0.0
        self.inputs: np.ndarray | None = piece_inputs([sop], self._place())

    def take(self, token: int, logprob: float, *, ends: bool, max_tokens: int) -> None:
        """Write a token, or the end of the blank."""
        self.logprob += logprob
        read = np.empty((3, 0), np.int64)
        if not ends:
            self.tokens.append(token)
            read = piece_inputs([token], self._place(), first=len(self.tokens) + 1)
        if not ends and len(self.tokens) < max_tokens:
            self.inputs = read
            return
        self.written[self.waiting.pop(0)] = Written(tuple(self.tokens), self.logprob)
        self.tokens, self.logprob, self.inputs = [], 0.0, None
        if self.waiting:
            # The blanks after one that was cut see its last token too. In the authors' generation they do not.
            self.inputs = np.concatenate((read, piece_inputs([self.sop], self._place())), 1)

    def _place(self) -> int:
        return int(self.prompt.mask_positions[self.waiting[0]])


def _sample(
    session: Session,
    prompts: Sequence[layout.Prompt],
    orders: Sequence[Sequence[int]],
    decoding: Decoding,
    limits: Limits,
) -> list[list[list[Written]]]:
    """Token by token, greedy or drawn. A row that ends a blank goes on with its next one, whatever the others do."""
    samples = [
        [
            _Row(prompt, order, draws_for(decoding.seed, prompt.tokens, i), sop=limits.sop)
            for i in range(decoding.samples)
        ]
        for prompt, order in zip(prompts, orders, strict=True)
    ]
    session.select(np.repeat(np.arange(len(prompts)), decoding.samples).tolist())
    active = [row for rows in samples for row in rows]
    while active:
        logits_BV = session.feed([row.inputs for row in active if row.inputs is not None])[:, : limits.vocab_size]
        allowed_BV = veto(logits_BV, [row.tokens for row in active], decoding, limits)
        uniforms = [row.draws.random() for row in active] if decoding.temperature else ()
        chosen_B = choose(allowed_BV, decoding, uniforms)
        logprobs = torch.log_softmax(logits_BV, -1).gather(1, chosen_B[:, None])[:, 0].tolist()
        check_finite(session.model, logprobs)
        for row, token, logprob in zip(active, chosen_B.tolist(), logprobs, strict=True):
            row.take(token, logprob, ends=token in limits.stop, max_tokens=decoding.max_tokens)
        going_on = [index for index, row in enumerate(active) if row.inputs is not None]
        active = [active[index] for index in going_on]
        if active:
            session.select(going_on)
    return [[[row.written[blank] for blank in sorted(row.written)] for row in rows] for rows in samples]


def _checked(decoding: Decoding | None) -> Decoding:
    if decoding is not None and not isinstance(decoding, Decoding):
        kind = type(decoding).__name__
        raise ValueError(f"decoding: expected a Decoding, such as Decoding(max_tokens=8), got {kind}")
    return decoding or Decoding()


def _filled(tokenizer: Tokenizer, text: str, written: Sequence[Written]) -> Filled:
    blanks = tuple(Blank(tokenizer.decode(tokens, inside=True), logprob, tokens) for tokens, logprob in written)
    return Filled(spliced(text, [blank.text for blank in blanks]), blanks)


def _check_room(model: GLM, prompt: layout.Prompt, decoding: Decoding) -> None:
    check_context(model.config, len(prompt.tokens))
    # A blank with others after it is fed whole: [sop] and all tokens.
    longest = model.config.positions - (len(prompt.mask_positions) > 1)
    if decoding.max_tokens > longest:
        raise ValueError(
            f"max_tokens={decoding.max_tokens} is more than the {longest} tokens that the model's positions allow in a "
            "blank. Lower max_tokens, or use a model with more positions"
        )
