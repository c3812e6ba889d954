"""Metrics of items that are judged together, by the column `joint`: an answer to a question that has several, a
sentence and its counterpart. An item without a `joint` is judged by itself.

em      exact match: all of them are right. Candidates of items' own are compared as texts, as SQuAD's script does
parity  all of them are answered alike, rightly or wrongly

What is counted stands at the first item of each: the others count nothing.
"""

import numpy as np

from pipelines.metrics.metric import Answers, mean_of
from pipelines.metrics.spans import equal_text


def _exact(answers: Answers) -> np.ndarray:
    return _at_first(answers, answers.is_right if answers.classes else equal_text(answers) > 0, np.all)


def _parity(answers: Answers) -> np.ndarray:
    return _at_first(answers, answers.choice, lambda choices: len({*choices.tolist()}) == 1)


def _at_first(answers: Answers, values: np.ndarray, judge) -> np.ndarray:
    """What `judge` says of the values of items that are judged together, at the first of them; NaN at the others."""
    found = np.full(len(values), np.nan)
    rows: dict[str, list[int]] = {}
    for row, (name, item) in enumerate(
        zip(answers.items["joint"].to_pylist(), answers.items["item"].to_pylist(), strict=True)
    ):
        rows.setdefault(name or f"\0{item}", []).append(row)
    for several in rows.values():
        found[several[0]] = float(judge(values[several]))
    return found


METRICS = {
    "em": mean_of(_exact),
    "parity": mean_of(_parity),
}
