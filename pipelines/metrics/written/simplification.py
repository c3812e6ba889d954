"""Metrics of sentences that are written for a longer or a harder one.

sari            Xu et al. (TACL 2016): of n-grams of 1 to 4 words, the F1 of those that are kept and of those that are
                added, and the precision of those that are deleted, beside what the right texts do with the source;
                their mean, and that over items. In lower case, tokenised as WMT does (13a)
two_sentences   the share of texts that are two sentences, by `sentence_marks.sentences`, whatever they say
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipelines.metrics.metric import Answers, mean_of
from pipelines.sentence_marks import sentences

_LONGEST = 4


def sari(source: Sequence[str], written: Sequence[str], right: Sequence[Sequence[str]]) -> float:
    """SARI of one item, on 0 to 1; each text as its words. right: one or several texts."""
    return float(np.mean([_of_ngrams(source, written, right, n) for n in range(1, _LONGEST + 1)]))


def _of_ngrams(source: Sequence[str], written: Sequence[str], right: Sequence[Sequence[str]], n: int) -> float:
    """An n-gram counts as often in the source and in what is written as there are right texts: what the authors' script
    weighs them by.
    """
    wanted = Counter(gram for words in right for gram in _ngrams(words, n))
    had = Counter({gram: len(right) * count for gram, count in Counter(_ngrams(source, n)).items()})
    has = Counter({gram: len(right) * count for gram, count in Counter(_ngrams(written, n)).items()})
    kept, deleted, added = had & has, had - has, {*has} - {*had}
    to_keep, to_add = had & wanted, {*wanted} - {*had}
    keep = _f1(_share(kept & wanted, kept), _share(kept & wanted, to_keep))
    delete = _share(deleted - wanted, deleted)
    rightly = len(added & {*wanted})
    add = _f1(rightly / max(len(added), 1), rightly / max(len(to_add), 1))
    return (keep + delete + add) / 3


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[first : first + n]) for first in range(len(words) - n + 1)]


def _share(good: Counter[tuple[str, ...]], of: Counter[tuple[str, ...]]) -> float:
    """The mean over n-grams of how much of each is good; 0 where there are none."""
    return sum(count / of[gram] for gram, count in good.items()) / len(of) if of else 0.0


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _sari(answers: Answers) -> np.ndarray:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenize = Tokenizer13a()
    rows = answers.items.select(["source", "candidates", "written"]).to_pylist()

    def words(text: str) -> list[str]:
        return tokenize(text.lower()).split()

    return np.array(
        [sari(words(row["source"]), words(row["written"]), [words(text) for text in row["candidates"]]) for row in rows]
    )


def _variant(items: pa.Table) -> str:
    return "Xu et al. (2016), mean over items, 1- to 4-grams, F1 of kept and added, precision of deleted; lc, tok:13a"


def _two_sentences(answers: Answers) -> np.ndarray:
    return np.array([float(len(sentences(text)) == 2) for text in answers.items["written"].to_pylist()])


METRICS = {
    "sari": mean_of(_sari, needs="written", variant=_variant),
    "two_sentences": mean_of(_two_sentences, needs="written"),
}
