"""Beam search, blank by blank: the best beam of a blank is kept, and the next blank sees it. Deterministic.

It costs `beams` rows per text. Finished beams are ranked by logprob / targets ** length_penalty, as Du et al. do for
their summaries.

Shapes: N texts, W beams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from glm_model import layout
from glm_model.checks import check_finite
from glm_model.decoding import Decoding
from glm_model.generation.sampling import Limits, Written, veto
from glm_model.generation.session import Session, piece_inputs


def beam_search(
    session: Session,
    prompts: Sequence[layout.Prompt],
    orders: Sequence[Sequence[int]],
    decoding: Decoding,
    limits: Limits,
) -> list[list[Written]]:
    """What is written into the masks of each prompt, in text order. The session holds one row per prompt.

    orders: the masks of each prompt in the order in which they are filled.
    """
    width = decoding.beams
    shared = session.lengths  # the beams of a text have its context in common
    session.select(np.repeat(np.arange(len(prompts)), width).tolist())
    searches = [
        _Search(prompt, order, length, decoding, limits)
        for prompt, order, length in zip(prompts, orders, session.lengths[::width], strict=True)
    ]
    active = searches
    while active:
        inputs = [beam_inputs for search in active for beam_inputs in search.inputs]
        logprobs_RV = torch.log_softmax(session.feed(inputs)[:, : limits.vocab_size], -1)
        vocabulary = logprobs_RV.shape[1]
        beams = [beam for search in active for beam in search.beams]
        logprobs_RV = veto(logprobs_RV, beams, decoding, limits)
        scores_R = torch.tensor([score for search in active for score in search.scores]).to(logprobs_RV)
        total_NC = (logprobs_RV + scores_R[:, None]).view(len(active), width * vocabulary)
        # A beam can end in len(stop) ways, so this many candidates include `width` that go on, if there are as many.
        best = torch.topk(total_NC, min(width * (1 + len(limits.stop)), total_NC.shape[1]), dim=1)
        check_finite(session.model, best.values[:, 0].tolist())  # NaN counts as the greatest
        for search, scores, places in zip(active, best.values.tolist(), best.indices.tolist(), strict=True):
            ranked = zip(scores, places, strict=True)
            search.take([(score, place // vocabulary, place % vocabulary) for score, place in ranked])
        going_on = [index for index, search in enumerate(active) if search.inputs]
        active, shared = [active[index] for index in going_on], [shared[index] for index in going_on]
        if active:
            session.select([index * width + beam for index in going_on for beam in range(width)])
            parents = [index * width + parent for index, search in enumerate(active) for parent in search.parents]
            session.select(parents, since=np.repeat(shared, width).tolist())
            session.rewind([search.keep for search in active for _ in range(width)])
    return [[search.written[blank] for blank in sorted(search.written)] for search in searches]


class _Search:
    """The beams of one text and their scores.

    To go on, row i of the text becomes what row parents[i] was, cut to `keep` positions, and reads inputs[i]. Without
    inputs the text is finished.
    """

    def __init__(self, prompt: layout.Prompt, order: Sequence[int], length: int, decoding: Decoding, limits: Limits):
        self.prompt, self.decoding, self.limits = prompt, decoding, limits
        self.waiting = list(order)
        self.written: dict[int, Written] = {}
        self.length = length
        """Positions of a row before the current blank."""
        self._start(np.empty((3, 0), np.int64))

    def take(self, candidates: Sequence[tuple[float, int, int]]) -> None:
        """Go on with the best (score, beam, token) of candidates that are sorted from best to worst.

        A candidate that ends a beam counts only among the best `beams` candidates.
        """
        width, live = self.decoding.beams, []
        for rank, (score, parent, token) in enumerate(candidates):
            if score == -np.inf or len(live) == width:
                break
            if token not in self.limits.stop:
                live.append((score, parent, (*self.beams[parent], token)))
            elif rank < width:
                self._finish(self.beams[parent], score, targets=len(self.beams[parent]) + 1)
        longest = self.decoding.max_tokens
        if live and len(live[0][2]) == longest:
            for score, _, tokens in live:
                self._finish(tokens, score, targets=longest)
            live = []
        # No beam can end better than with its present score, spread over the most targets that a blank may have.
        if not live or (self.best and self.best[0] >= live[0][0] / longest**self.decoding.length_penalty):
            self._end_blank()
            return
        place = int(self.prompt.mask_positions[self.blank])
        live += [(-np.inf, live[0][1], live[0][2])] * (width - len(live))
        self.scores, self.parents, self.beams = ([beam[i] for beam in live] for i in range(3))
        self.inputs = [piece_inputs(tokens[-1:], place, first=len(tokens) + 1) for tokens in self.beams]
        self.keep = self.length + len(self.beams[0])  # all that was read: [sop] and the beam without its last token

    def _finish(self, tokens: tuple[int, ...], logprob: float, *, targets: int) -> None:
        rank = logprob / targets**self.decoding.length_penalty
        if self.best is None or rank > self.best[0]:
            self.best = rank, Written(tokens, logprob)

    def _end_blank(self) -> None:
        assert self.best is not None, "a beam that does not go on has ended"
        self.written[self.blank] = self.best[1]
        if not self.waiting:
            self.inputs = []
            return
        place = int(self.prompt.mask_positions[self.blank])
        self._start(piece_inputs((self.limits.sop, *self.best[1].tokens), place))

    def _start(self, before: np.ndarray) -> None:
        """Begin the next blank, behind inputs [3, n] that are still to be read."""
        width = self.decoding.beams
        self.blank = self.waiting.pop(0)
        self.beams: list[tuple[int, ...]] = [()] * width
        self.scores = [0.0, *[-np.inf] * (width - 1)]
        self.parents = list(range(width))
        self.best: tuple[float, Written] | None = None
        start = piece_inputs([self.limits.sop], int(self.prompt.mask_positions[self.blank]))
        self.inputs = [np.concatenate((before, start), 1)] * width
        self.keep = self.length
        self.length += before.shape[1]
