"""Fill the blanks of texts, one after the other, with a key-value cache: each new token costs one position.

Several texts, of any lengths and numbers of blanks, are written side by side; each gets what it would get alone.
Shapes: B rows (a text has `samples` or `beams` of them), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from glm_model import layout
from glm_model.checks import check_finite
from glm_model.decoding import Decoding
from glm_model.generation.beam_search import beam_search
from glm_model.generation.prompts import check_context, listed, naming_text, read_prompts, resolve_order, spliced
from glm_model.generation.sampling import Written, choose, draws_for, veto
from glm_model.generation.session import Session, evaluating, known_ids, piece_inputs
from glm_model.ids import check_known
from glm_model.model import GLM

if TYPE_CHECKING:
    from glm_model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Blank:
    """What was written into one mask."""

    text: str
    """With the space it begins with where spaces are tokens; without the "##" of a piece inside a word."""
    logprob: float
    """Natural log of the model's own probability (before temperature and filters), the end token included."""
    tokens: tuple[int, ...]
    """Without the end token."""


@dataclass(frozen=True)
class Filled:
    """A text with its blanks filled."""

    parts: tuple[str, ...]
    """The user's own text, as it was given, and what stands in place of the masks, in turn: `prompts.spliced`."""
    blanks: tuple[Blank, ...]
    """In the order of the masks in the text."""

    @property
    def text(self) -> str:
        """The user's text with its masks replaced."""
        return "".join(self.parts)

    @property
    def logprob(self) -> float:
        """Of all blanks together, each given those filled before it."""
        return sum(blank.logprob for blank in self.blanks)


def fill(
    model: GLM,
    tokenizer: Tokenizer,
    text: str,
    *,
    max_tokens: int = 64,
    min_tokens: int = 1,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    beams: int = 1,
    length_penalty: float = 1.0,
    no_repeat_ngram: int = 0,
    seed: int = 0,
    order: str | Sequence[int] = "left_to_right",
) -> Filled:
    """Fill every [MASK], [sMASK] and [gMASK] of a text; each blank sees those written before it.

    max_tokens ... seed: see `Decoding`. order: "left_to_right", "right_to_left", or the masks' indices in the order in
    which to fill them. Raises ValueError when the text is empty, has no mask or is too long for the model, on bad
    options, and when the model's weights are not finite.
    """
    if not isinstance(text, str):
        raise ValueError(f"the text is a {type(text).__name__}, no string. fill_batch takes a list of texts")
    decoding = Decoding(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        beams=beams,
        length_penalty=length_penalty,
        no_repeat_ngram=no_repeat_ngram,
        seed=seed,
    )
    return fill_batch(model, tokenizer, [text], decoding, order=order)[0][0]


def fill_batch(
    model: GLM,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    decoding: Decoding | None = None,
    *,
    order: str | Sequence[int] = "left_to_right",
) -> list[list[Filled]]:
    """`fill` for several texts at once: for each its `decoding.samples` filled versions.

    Faster than one at a time (`benchmarks/generate.py`) and equal to it. Memory grows with the number of texts: hand in
    some tens at a time. order: as for `fill`, the same for every text. Control tokens ([CLS], masks, [UNK], ...) are
    never written, however probable; [eop] and eos end a blank. Raises ValueError as `fill` does, naming the text.
    """
    if decoding is not None and not isinstance(decoding, Decoding):
        raise ValueError(f"decoding is a {type(decoding).__name__}; give a Decoding, such as Decoding(max_tokens=8)")
    special, texts = tokenizer.special, listed(texts, "texts", "strings")
    ends = (special.eop, special.eos)
    prompts = read_prompts(tokenizer, texts)
    written = fill_tokens(
        model,
        prompts,
        decoding or Decoding(),
        sop=special.sop,
        stop=ends,
        banned=sorted(tokenizer.control_ids.difference(ends)),
        vocab_size=tokenizer.vocab_size,
        order=order,
    )
    return [
        [_filled(tokenizer, text, sample) for sample in samples] for text, samples in zip(texts, written, strict=True)
    ]


@torch.inference_mode()
def fill_tokens(
    model: GLM,
    prompts: Sequence[layout.Prompt],
    decoding: Decoding,
    *,
    sop: int,
    stop: tuple[int, ...],
    banned: Sequence[int] = (),
    vocab_size: int | None = None,
    order: str | Sequence[int] = "left_to_right",
    use_cache: bool = True,
) -> list[list[list[Written]]]:
    """What is written into each mask: of each prompt, its samples; of each sample, its masks in text order.

    stop: ids that end a blank; they are neither kept nor fed. banned: ids that are never written; the authors' code
    has none. vocab_size: nor are ids from here on.
    use_cache=False recomputes everything for each token: the reference for the cache. Otherwise as for `fill_batch`.
    Raises ValueError on a text or a blank that is too long for the model, on ids that it has not, and when its weights
    are not finite.
    """
    if not prompts:
        return []
    orders = []
    for index, prompt in enumerate(prompts):
        with naming_text(index, len(prompts)):
            orders.append(resolve_order(order, len(prompt.mask_positions)))
            _check_room(model, prompt, decoding)
    known = known_ids(model, vocab_size)
    check_known(stop, known, "stop")
    limits = {"stop": stop, "banned": [token for token in banned if 0 <= token < known], "vocab_size": known}
    # The last token of a row's last blank is not fed.
    longest = max(len(p.tokens) + len(p.mask_positions) * (decoding.max_tokens + 1) - 1 for p in prompts)
    with evaluating(model):
        session = Session(model, [prompt.tokens for prompt in prompts], capacity=longest, use_cache=use_cache)
        if decoding.beams == 1:
            return _sample(session, prompts, orders, decoding, sop=sop, **limits)
        best = beam_search(session, prompts, orders, decoding, sop=sop, **limits)
        return [[blanks] for blanks in best]


class _Row:
    """One sample of one text: `inputs` is what it reads next (None: it is finished)."""

    def __init__(self, prompt: layout.Prompt, order: Sequence[int], draws: np.random.Generator, *, sop: int):
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
            # A blank that is cut shows its last token to those after it (in the authors' generation it does not).
            self.inputs = np.concatenate((read, piece_inputs([self.sop], self._place())), 1)

    def _place(self) -> int:
        return int(self.prompt.mask_positions[self.waiting[0]])


def _sample(
    session: Session,
    prompts: Sequence[layout.Prompt],
    orders: Sequence[Sequence[int]],
    decoding: Decoding,
    *,
    sop: int,
    stop: tuple[int, ...],
    banned: Sequence[int],
    vocab_size: int,
) -> list[list[list[Written]]]:
    """Token by token, greedy or drawn; a row that ends a blank goes on with its next one, whatever the others do."""
    samples = [
        [_Row(prompt, order, draws_for(decoding.seed, prompt.tokens, i), sop=sop) for i in range(decoding.samples)]
        for prompt, order in zip(prompts, orders, strict=True)
    ]
    session.select(np.repeat(np.arange(len(prompts)), decoding.samples).tolist())
    active = [row for rows in samples for row in rows]
    while active:
        logits_BV = session.feed([row.inputs for row in active if row.inputs is not None])[:, :vocab_size]
        allowed_BV = veto(logits_BV, [row.tokens for row in active], decoding, stop=stop, banned=banned)
        uniforms = [row.draws.random() for row in active] if decoding.temperature else ()
        chosen_B = choose(allowed_BV, decoding, uniforms)
        logprobs = torch.log_softmax(logits_BV, -1).gather(1, chosen_B[:, None])[:, 0].tolist()
        check_finite(session.model, logprobs)
        for row, token, logprob in zip(active, chosen_B.tolist(), logprobs, strict=True):
            row.take(token, logprob, ends=token in stop, max_tokens=decoding.max_tokens)
        going_on = [index for index, row in enumerate(active) if row.inputs is not None]
        active = [active[index] for index in going_on]
        if active:
            session.select(going_on)
    return [[[row.written[blank] for blank in sorted(row.written)] for row in rows] for rows in samples]


def _filled(tokenizer: Tokenizer, text: str, written: Sequence[Written]) -> Filled:
    blanks = tuple(Blank(tokenizer.decode(tokens), logprob, tokens) for tokens, logprob in written)
    return Filled(spliced(text, [blank.text for blank in blanks]), blanks)


def _check_room(model: GLM, prompt: layout.Prompt, decoding: Decoding) -> None:
    check_context(model.config, len(prompt.tokens))
    # A blank that others follow is fed whole: [sop] and all tokens.
    longest = model.config.positions - (len(prompt.mask_positions) > 1)
    if decoding.max_tokens > longest:
        raise ValueError(
            f"max_tokens={decoding.max_tokens} is more than the {longest} tokens that the model's positions allow in a "
            "blank. Lower max_tokens, or use a model with more positions"
        )
