"""Histograms of drawn blanks, beside what theory expects where it expects something.

observed    share of the things that have the label, [K]        1    2    3    4+
theory      share that is expected, [K]                         0.16 0.24 0.24 0.36
"""

from typing import NamedTuple

import numpy as np

from pipelines.blanks.mixture import Mixture
from pipelines.feed.examples import FeedSettings, draw_epoch
from pipelines.objectives import SegmentBatch
from pipelines.ragged import Blanks, Segments, concatenate_rows, owners
from pipelines.store.format import Split
from pipelines.token_classes import TokenClasses

_SHARE_BINS = 20
_MOST_BARS = 40


class Histogram(NamedTuple):
    """Shares of `count` things by label; `theory` has the expected shares, or is None."""

    title: str
    labels: list[str]
    observed: np.ndarray
    theory: np.ndarray | None
    count: int


def split_histograms(split: Split, settings: FeedSettings, *, groups: int, epoch: int) -> list[Histogram]:
    """Histograms of the blanks of an epoch in the first row groups of a split, `groups` of them at most."""
    batches = [split.read_group(group) for group in range(min(groups, len(split.group_rows)))]
    rows, blanks = concatenate_rows([(batch, draw_epoch(batch, settings, epoch)) for batch in batches])
    return histograms(settings.mixture, rows, blanks, settings.token_classes)


def histograms(mixture: Mixture, segments: Segments, blanks: Blanks, token_classes: TokenClasses) -> list[Histogram]:
    """For every objective that occurs: blank lengths, blanks of a segment, and the blanked share of the text."""
    batch = SegmentBatch(segments.tokens, segments.offsets, segments.ids, token_classes)
    share = blanks.tokens / np.maximum(batch.text_ends - 1, 1)
    segment = owners(blanks.span_offsets)
    result = []
    for index, (name, module, config) in enumerate(zip(mixture.names, mixture.modules, mixture.configs, strict=True)):
        chosen = blanks.objective == index
        if not chosen.any():
            continue
        lengths, numbers = blanks.sizes[chosen[segment]], blanks.counts[chosen]
        if len(lengths) > len(numbers):  # more than one blank: their lengths say more than the share does
            theory = module.length_theory(config) if hasattr(module, "length_theory") else None
            result.append(_by_value(f"{name}: length of a blank, in tokens", lengths, theory))
            result.append(_by_value(f"{name}: blanks of a segment", numbers, None))
        result.append(_by_share(f"{name}: blanked share of the text", share[chosen]))
    return result


def _by_value(title: str, values: np.ndarray, theory: np.ndarray | None) -> Histogram:
    """One bar per value from 1 on, the last for all from there; theory[v] is the probability of v."""
    most = int(min(np.quantile(values, 0.999) + 1, _MOST_BARS))
    observed = np.bincount(np.minimum(values, most), minlength=most + 1)[1:] / len(values)
    expected = None
    if theory is not None:
        padded = np.concatenate((theory, np.zeros(most + 1)))
        expected = np.append(padded[1:most], padded[most:].sum())
    labels = [str(value) for value in range(1, most)] + [f"{most}+"]
    return Histogram(title, labels, observed, expected, len(values))


def _by_share(title: str, share: np.ndarray) -> Histogram:
    """A bar per twentieth; a share of 1 is in the last."""
    bins = np.minimum((share * _SHARE_BINS).astype(np.int64), _SHARE_BINS - 1)
    observed = np.bincount(bins, minlength=_SHARE_BINS) / len(share)
    labels = [f"{100 * i // _SHARE_BINS} %" for i in range(_SHARE_BINS)]
    return Histogram(title, labels, observed, None, len(share))
