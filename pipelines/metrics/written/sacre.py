"""BLEU (Papineni et al., ACL 2002) and chrF (Popović, WMT 2015) by the package sacrebleu, of all items together: what
is counted is summed over them. The signature that names the variant stands with every score.

sacrebleu       tokenised as WMT does (13a), in the case that is written
sacrebleu_lc    in lower case: for models whose vocabulary has no upper case
sacrebleu_zh    by characters of Chinese
chrf            F of character n-grams, recall twice as much as precision
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.metrics.metric import Answers, Metric, sum_by_group

_MAKERS: dict[str, Callable[[Any], Any]] = {
    "sacrebleu": lambda package: package.BLEU(),
    "sacrebleu_lc": lambda package: package.BLEU(lowercase=True),
    "sacrebleu_zh": lambda package: package.BLEU(tokenize="zh"),
    "chrf": lambda package: package.CHRF(),
}


@functools.cache
def _by(name: str) -> Any:
    from sacrebleu import metrics

    return _MAKERS[name](metrics)


def _sums(name: str) -> Callable[[Answers, np.ndarray], np.ndarray]:
    def sums(answers: Answers, groups: np.ndarray) -> np.ndarray:
        # What sacrebleu's own bootstrap adds up. It would take a list of right texts that is too short without a word.
        rows = answers.items.select(["candidates", "written"]).to_pylist()
        counted = [
            _by(name)._extract_corpus_statistics([row["written"]], [[right] for right in row["candidates"]])[0]
            for row in rows
        ]
        return sum_by_group(np.array(counted, np.float64), groups)

    return sums


def _value(name: str) -> Callable[[np.ndarray], np.ndarray]:
    def value(sums: np.ndarray) -> np.ndarray:
        several = sums.reshape(-1, sums.shape[-1]).astype(np.int64).tolist()
        return np.array([_by(name)._compute_score_from_stats(one).score for one in several]).reshape(sums.shape[:-1])

    return value


def _variant(name: str) -> Callable[[pa.Table], str]:
    def variant(items: pa.Table) -> str:
        _by(name).corpus_score(["a"], [["a"]])  # before, it has no signature
        counts = {len(one) for one in items["candidates"].to_pylist()}
        _, _, rest = str(_by(name).get_signature()).partition("|")
        return f"nrefs:{counts.pop() if len(counts) == 1 else 'var'}|{rest}"

    return variant


METRICS = {
    name: Metric(_sums(name), _value(name), needs="written", digits=1, variant=_variant(name)) for name in _MAKERS
}
