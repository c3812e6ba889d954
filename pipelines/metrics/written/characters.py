"""F1 of the characters of what is written and the nearest right text, counted as often as they stand there, without
white space: for texts that have no spaces between words, of which F1 of words says nothing.
"""

from collections import Counter

import numpy as np

from pipelines.metrics.metric import Answers, mean_of
from pipelines.metrics.written.nearest import nearest


def char_f1(right: str, written: str) -> float:
    """On 0 to 1; 0 where either has no characters but white space."""
    first, second = ("".join(text.split()) for text in (right, written))
    shared = sum((Counter(first) & Counter(second)).values())
    return 2 * shared / (len(first) + len(second)) if shared else 0.0


def _char_f1(answers: Answers) -> np.ndarray:
    return nearest(answers.items, char_f1)


METRICS = {"char_f1": mean_of(_char_f1, needs="written")}
