"""Whether the shares that a model gives to labels are what they claim: of items with 0.8, eight of ten should be right.

Shares are the softmax over the candidates' log-probabilities. Both figures are on 0 to 100, and lower is better:

  ece     expected calibration error (Guo et al., ICML 2017): items are cut by the share of the chosen label into 15
          bins of equal width; the mean distance of accuracy and share, weighted by the items of a bin
  brier   Brier's score (1950), halved: half the squared distance of the shares from 1 for the gold label and 0 for the
          others, by scikit-learn

Shapes: N items, K labels.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.metrics.items import judged

BINS = 15


@dataclass(frozen=True)
class Calibration:
    ece: float
    brier: float


def calibration(table: pa.Table, *, classes: int) -> Calibration | None:
    """The figures of a table of items; None where no gold answer is known, and for items with candidates of their own
    (classes: 0).
    """
    items = judged(table)
    if not classes or not len(items):
        return None
    logprobs_NK = np.array(items["logprobs"].to_pylist())
    return of_shares(shares_of(logprobs_NK), items["gold"].to_numpy().astype(np.int64))


def shares_of(logprobs_NK: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    weights_NK = np.exp(logprobs_NK - logprobs_NK.max(-1, keepdims=True))
    return weights_NK / weights_NK.sum(-1, keepdims=True)


def of_shares(shares_NK: np.ndarray, gold_N: np.ndarray) -> Calibration:
    """The figures of shares and gold labels."""
    from sklearn.metrics import brier_score_loss

    labels = list(range(shares_NK.shape[1]))
    brier = brier_score_loss(gold_N, shares_NK, labels=labels, scale_by_half=True)  # pyright: ignore[reportArgumentType]
    sure_N, right_N = shares_NK.max(1), shares_NK.argmax(1) == gold_N
    # A share that lies on a border belongs to the bin below it.
    bin_N = np.clip(np.ceil(sure_N * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bin_N, weights=right_N - sure_N, minlength=BINS)
    return Calibration(ece=100 * float(np.abs(gaps).sum()) / len(gold_N), brier=100 * float(brier))
