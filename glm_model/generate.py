"""Fill the blanks of a text, one after the other, with a key-value cache: each new token costs one position.

Shapes: B rows (1 here), L row length, V vocabulary, n context length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from glm_model import layout
from glm_model.model import GLM, Cache

if TYPE_CHECKING:
    from glm_model.tokenizer import Tokenizer


@dataclass(frozen=True)
class Blank:
    """What was written into one mask."""

    text: str
    logprob: float
    """Natural log of the model's own probability (before temperature and filters), the end token included."""
    tokens: tuple[int, ...]
    """Without the end token."""


@dataclass(frozen=True)
class Filled:
    """A text with its blanks filled; `blanks` are in the order of the masks in the text."""

    text: str
    blanks: tuple[Blank, ...]


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen. Temperature 0 takes the most probable one and ignores the rest."""

    max_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    """Only the k most probable tokens; 0: all."""
    top_p: float = 1.0
    """Only the most probable tokens that together reach this probability."""
    seed: int = 0
    min_tokens: int = 0
    """A blank may not end before it has as many tokens."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens={self.max_tokens} leaves nothing to write: use at least 1")
        if self.temperature < 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                f"temperature={self.temperature}, top_k={self.top_k}, top_p={self.top_p}: temperature and top_k must "
                "not be negative and top_p must be above 0 and at most 1"
            )


def fill(
    model: GLM,
    tokenizer: Tokenizer,
    text: str,
    *,
    max_tokens: int = 64,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    order: str | Sequence[int] = "left_to_right",
) -> Filled:
    """Fill every [MASK], [sMASK] and [gMASK] of a text; each blank sees those written before it.

    max_tokens: per blank. order: "left_to_right", or the masks' indices in the order in which to fill them.
    The input is [CLS] + text + eos, without eos where the text ends in [gMASK], as in the authors' generate_samples.py.
    Raises ValueError when the text is empty, has no mask or is too long for the model.
    """
    # Every blank of the training data has a token; a young model still ends some at once, [eop] being its most frequent
    # target.
    sampling = Sampling(max_tokens, temperature, top_k, top_p, seed, min_tokens=1)
    special = tokenizer.special
    if not text.strip():
        raise ValueError("the text is empty. Write a text with [MASK] where the model should write")
    ending = [] if text.rstrip().endswith("[gMASK]") else [special.eos]
    ids = np.concatenate(([special.cls], tokenizer.encode_prompt(text), ending))
    masks = tuple(i for i in (special.mask, special.smask, special.gmask) if i >= 0)
    prompt = layout.prompt(ids, masks=masks)
    written = fill_tokens(
        model,
        prompt,
        sampling,
        sop=special.sop,
        stop=(special.eop, special.eos),
        vocab_size=tokenizer.vocab_size,
        order=order,
    )
    blanks = tuple(Blank(tokenizer.decode(tokens), logprob, tokens) for tokens, logprob in written)
    pieces = np.split(prompt.tokens, prompt.mask_positions)
    whole = [pieces[0][1:]]  # without [CLS]
    for blank, after in zip(blanks, pieces[1:], strict=True):
        whole += [np.array(blank.tokens, np.int64), after[1:]]
    return Filled(tokenizer.decode(np.concatenate(whole)), blanks)


@torch.inference_mode()
def fill_tokens(
    model: GLM,
    prompt: layout.Prompt,
    sampling: Sampling,
    *,
    sop: int,
    stop: tuple[int, ...],
    vocab_size: int | None = None,
    order: str | Sequence[int] = "left_to_right",
    use_cache: bool = True,
) -> list[tuple[tuple[int, ...], float]]:
    """(tokens, logprob) of each mask of a prompt, in text order.

    stop: ids that end a blank; they are neither kept nor fed. vocab_size: ids from here on are never written.
    use_cache=False recomputes everything for each token: the reference for the cache. Otherwise as for `fill`.
    """
    count = len(prompt.mask_positions)
    longest = model.config.positions - (count > 1)  # a blank that others follow is fed whole: [sop] and all tokens
    if sampling.max_tokens > longest:
        raise ValueError(
            f"max_tokens={sampling.max_tokens} is more than the {longest} tokens that the model's positions allow in a "
            "blank. Lower max_tokens, or use a model with more positions"
        )
    generator = torch.Generator().manual_seed(sampling.seed)
    written: dict[int, tuple[tuple[int, ...], float]] = {}
    was_training = model.training
    model.eval()
    try:
        reader = _Reader(model, prompt, sampling.max_tokens, use_cache=use_cache)
        for blank in _resolve_order(order, count):
            tokens: list[int] = []
            logprob, fed, place = 0.0, sop, int(prompt.mask_positions[blank])
            while len(tokens) < sampling.max_tokens:
                logits_V = reader.read(fed, *layout.piece_positions(place, len(tokens) + 1, 1))
                allowed_V = logits_V[:vocab_size].clone()
                if len(tokens) < sampling.min_tokens:
                    allowed_V[list(stop)] = -torch.inf
                fed = _choose(allowed_V, sampling, generator)
                logprob += float(torch.log_softmax(logits_V[:vocab_size], -1)[fed])
                if fed in stop:
                    break
                tokens.append(fed)
            else:  # cut: the blanks after it see its last token all the same (in the authors' generation they do not)
                if len(written) + 1 < count:
                    reader.read(fed, *layout.piece_positions(place, len(tokens) + 1, 1))
            written[blank] = tuple(tokens), logprob
    finally:
        model.train(was_training)
    return [written[blank] for blank in sorted(written)]


class _Reader:
    """Feeds a prompt and then one token at a time; with or without a cache."""

    def __init__(self, model: GLM, prompt: layout.Prompt, max_tokens: int, *, use_cache: bool):
        self.model = model
        self.context = len(prompt.tokens)
        positions = layout.context_positions(self.context)
        # Rows: tokens, position_ids, block_position_ids of all that was fed.
        self.fed = torch.from_numpy(np.stack((prompt.tokens, *positions))).to(model.token_embedding.weight.device)
        self.cache: Cache | None = None
        if use_cache:
            self.cache = Cache(model, 1, self.context + len(prompt.mask_positions) * (max_tokens + 1) - 1)
            model.hidden(*self.fed[:, None], cache=self.cache)

    def read(self, token: int, position_ids: np.ndarray, block_position_ids: np.ndarray) -> Tensor:
        """float32 logits [V], on the CPU, of what follows the token."""
        new = torch.tensor([[token], position_ids.tolist(), block_position_ids.tolist()]).to(self.fed.device)
        if self.cache is not None:
            tokens, places, blocks = new[:, None]
            x_BLD = self.model.hidden(tokens, places, blocks, cache=self.cache)
        else:
            self.fed = torch.cat((self.fed, new), 1)
            tokens, places, blocks = self.fed[:, None]
            end = torch.full_like(tokens, self.context)
            x_BLD = self.model.hidden(tokens, places, blocks, torch.zeros_like(end), end)
        return self.model.logits(x_BLD[0, -1]).float().cpu()


def _choose(logits_V: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """The next token. Filters: top-k, then top-p on what is left."""
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    logits, ids = torch.sort(logits_V / sampling.temperature, descending=True, stable=True)
    if sampling.top_k:
        logits, ids = logits[: sampling.top_k], ids[: sampling.top_k]
    probs = torch.softmax(logits, -1)
    # A token stays when those before it do not reach top_p yet; so the first one always stays.
    probs[probs.cumsum(-1) - probs >= sampling.top_p] = 0
    return int(ids[torch.multinomial(probs, 1, generator=generator)])


def _resolve_order(order: str | Sequence[int], count: int) -> list[int]:
    if order == "left_to_right":
        return list(range(count))
    if isinstance(order, str) or sorted(order) != list(range(count)):
        raise ValueError(
            f"order={order!r} does not name each of the text's {count} masks once. "
            f"Use 'left_to_right', or the numbers 0 to {count - 1} in any order"
        )
    return list(order)
