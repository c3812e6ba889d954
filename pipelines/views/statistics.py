"""Histograms of drawn blanks, beside what theory says where it says something."""

from typing import NamedTuple

import numpy as np

from pipelines.blanks.draw import draw_rows
from pipelines.blanks.mixture import Mixture
from pipelines.feed.examples import FeedSettings
from pipelines.objectives import SegmentBatch
from pipelines.ragged import Blanks, RowBatch, concatenate_rows
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
    parts = []
    for group in range(min(groups, len(split.group_rows))):
        rows = split.read_group(group)
        blanks, _ = draw_rows(
            settings.mixture, rows, settings.token_classes, seed=settings.seed, epoch=epoch, width=settings.width
        )
        parts.append((rows, blanks))
    return histograms(settings.mixture, *concatenate_rows(parts), settings.token_classes)


def histograms(mixture: Mixture, rows: RowBatch, drawn: Blanks, token_classes: TokenClasses) -> list[Histogram]:
    """For every objective that occurs: blank lengths, blanks of a segment, and the blanked share of the text."""
    batch = SegmentBatch(rows.tokens, rows.offsets, rows.ids, token_classes)
    sizes, counts = drawn.spans[:, 1] - drawn.spans[:, 0], np.diff(drawn.span_offsets)
    of_segment = np.repeat(np.arange(len(counts)), counts)
    blanked = np.bincount(of_segment, weights=sizes, minlength=len(counts))
    share = blanked / np.maximum(batch.text_ends - 1, 1)
    found = []
    for index, (name, module, config) in enumerate(zip(mixture.names, mixture.modules, mixture.configs, strict=True)):
        mine = drawn.objective == index
        if not mine.any():
            continue
        lengths, number = sizes[mine[of_segment]], counts[mine]
        if len(lengths) > len(number):  # more than one blank: their lengths say more than the share does
            theory = module.length_theory(config) if hasattr(module, "length_theory") else None
            found.append(_by_value(f"{name}: length of a blank, in tokens", lengths, theory))
            found.append(_by_value(f"{name}: blanks of a segment", number, None))
        found.append(_by_share(f"{name}: blanked share of the text", share[mine]))
    return found


def _by_value(title: str, values: np.ndarray, theory: np.ndarray | None) -> Histogram:
    """One bar per value from 1 on, the last for all from there; theory[v] is the probability of v."""
    shown = int(min(np.quantile(values, 0.999) + 1, _MOST_BARS))
    observed = np.bincount(np.minimum(values, shown), minlength=shown + 1)[1:] / len(values)
    expected = None
    if theory is not None:
        padded = np.concatenate((theory, np.zeros(shown + 1)))
        expected = np.append(padded[1:shown], padded[shown:].sum())
    labels = [str(value) for value in range(1, shown)] + [f"{shown}+"]
    return Histogram(title, labels, observed, expected, len(values))


def _by_share(title: str, share: np.ndarray) -> Histogram:
    bins = np.minimum((share * _SHARE_BINS).astype(np.int64), _SHARE_BINS - 1)
    observed = np.bincount(bins, minlength=_SHARE_BINS) / len(share)
    labels = [f"{100 * i // _SHARE_BINS} %" for i in range(_SHARE_BINS)]
    return Histogram(title, labels, observed, None, len(share))
