"""Metrics of answers that are texts, as the scripts of SQuAD 1.1 and ReCoRD compare them: equal, or by the words that
they share. Of several right answers the nearest one counts.
"""

import re
import string
from collections import Counter
from collections.abc import Callable

import numpy as np

from pipelines.metrics.metric import Answers, mean_of

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """In lower case, without ASCII punctuation, English articles and repeated white space: "The A-Team" is "ateam"."""
    return " ".join(_ARTICLE.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(answer: str, gold: str) -> float:
    """F1 of the words of two texts, counted as often as they stand there, on 0 to 1. Of texts that are nothing but
    articles and punctuation it is 0, also of equal ones, as the scripts say.
    """
    words, right = normalised(answer).split(), normalised(gold).split()
    shared = sum((Counter(words) & Counter(right)).values())
    return 2 * shared / (len(words) + len(right)) if shared else 0.0


def equal_text(answers: Answers) -> np.ndarray:
    """1.0 where the chosen candidate is a right one by its normalised text, else 0.0: [N]."""
    return _nearest(answers, lambda answer, gold: float(normalised(answer) == normalised(gold)))


def _nearest(answers: Answers, likeness: Callable[[str, str], float]) -> np.ndarray:
    """How like the chosen candidate is to the nearest right one, [N]; 0 where nothing is chosen."""
    rows = answers.items.select(["candidates", "gold", "golds"]).to_pylist()
    return np.array(
        [
            max(likeness(row["candidates"][choice], row["candidates"][gold]) for gold in row["golds"] or [row["gold"]])
            if choice >= 0
            else 0.0
            for row, choice in zip(rows, answers.choice.tolist(), strict=True)
        ]
    )


METRICS = {"f1": mean_of(lambda answers: _nearest(answers, token_f1), needs="candidates")}
