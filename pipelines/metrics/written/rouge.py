"""ROUGE (Lin, 2004) by the package rouge-score: F1 with Porter's stemmer, of several right texts the nearest.

rouge1, rouge2   of words, and of pairs of them
rougeL           of the longest common subsequence of both texts
rougeLsum        of the union of these over sentences, as published figures of summaries; the package wants sentences on
                 lines of their own, which `sentence_marks.sentences` makes of both texts

The package knows no letters but a to z and no digits but 0 to 9. Where a right text has none of them its value would be
0 for any answer: such items do not count, and texts of other scripts are to be compared by `chrf` or `char_f1`.
"""

import functools
import re
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.metrics.metric import Answers, Metric, mean_of
from pipelines.metrics.written.nearest import nearest
from pipelines.sentence_marks import sentences

_KNOWN = re.compile(r"[a-z0-9]")
_NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def _variant(items: pa.Table) -> str:
    rule = "sentences end at line breaks and behind . ! ? before white space"
    return f"rouge-score {metadata.version('rouge-score')}, F1, stemmer, nearest right text; {rule}"


def _rouge(name: str) -> Metric:
    def values(answers: Answers) -> np.ndarray:
        scorer = _scorer(name)
        shown: Callable[[str], str] = _on_lines if name == "rougeLsum" else str

        def likeness(right: str, written: str) -> float:
            if not _KNOWN.search(right.lower()):
                return float("nan")
            return scorer.score(shown(right), shown(written))[name].fmeasure

        return nearest(answers.items, likeness)

    return mean_of(values, needs="written", variant=_variant)


def _on_lines(text: str) -> str:
    return "\n".join(sentences(text))


@functools.cache
def _scorer(name: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # takes 2 s to import

    return RougeScorer([name], use_stemmer=True)


METRICS = {name: _rouge(name) for name in _NAMES}
