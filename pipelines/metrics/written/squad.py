"""EM and F1 of answers to questions about a passage, as the scripts of SQuAD 1.1 (Rajpurkar et al., EMNLP 2016) and 2.0
(ACL 2018) compute them: texts are compared in lower case, without articles, punctuation and repeated white space, and
of several right answers the nearest counts. Where there is no answer, only to say so is right.

squad_em, squad_f1         over all questions
squad_f1_has_answer        over those that the passage answers
squad_em_no_answer         over those that it does not

A long passage is read in windows, each of which is an item of its own: the first one counts whose answer is not "N/A",
in the order of the passage. What is written is spelled as the window spells it, where it stands there.
The scripts differ in one case that is not SQuAD's: an answer of nothing but articles and punctuation, which is compared
as 1.1 does.
"""

import unicodedata
from collections.abc import Callable

import numpy as np

from pipelines.metrics.metric import Answers, mean_of
from pipelines.metrics.spans import normalised, token_f1
from pipelines.questions.generation import NO_ANSWER


def span_of(passage: str, written: str) -> tuple[int, int] | None:
    """Where a passage holds what was written, in characters; None where it does not. Case, accents and white space play
    no part: a model of lower case writes "1 , 000 eur" for "1,000 EUR". A place where whole words stand is preferred.
    """
    letters, places = _letters(passage)
    wanted, _ = _letters(written)
    found = letters.find(wanted) if wanted else -1
    first = None
    while found >= 0:
        begin, end = places[found], places[found + len(wanted) - 1] + 1
        if not (passage[begin - 1 : begin].isalnum() or passage[end : end + 1].isalnum()):
            return begin, end
        first = first or (begin, end)
        found = letters.find(wanted, found + 1)
    return first


def _letters(text: str) -> tuple[str, list[int]]:
    """(the letters and marks of a text as they are compared, the place of each)."""
    letters, places = [], []
    for place, character in enumerate(text):
        for letter in unicodedata.normalize("NFD", character.lower()):
            if not letter.isspace() and not unicodedata.combining(letter):
                letters.append(letter)
                places.append(place)
    return "".join(letters), places


def is_no_answer(written: str) -> bool:
    return "".join(written.lower().split()) in ("", NO_ANSWER.lower())


def em(answer: str, gold: str) -> float:
    return float(normalised(answer) == normalised(gold))


def _judged(likeness: Callable[[str, str], float], *, answered: bool = True, unanswered: bool = True):
    """What a question gets, at the first of its windows; NaN at the others, and at questions that are left out."""

    def values(answers: Answers) -> np.ndarray:
        found = np.full(len(answers.items), np.nan)
        rows = answers.items.select(["item", "joint", "source", "candidates", "written"]).to_pylist()
        windows: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            windows.setdefault(row["joint"] or row["item"], []).append(number)
        for several in windows.values():
            # The order of ids is that of the passage: q/10 stands behind q/9.
            ordered = sorted(several, key=lambda number: (len(rows[number]["item"]), rows[number]["item"]))
            golds = rows[ordered[0]]["candidates"]
            has_answer = golds != [NO_ANSWER]
            if answered if has_answer else unanswered:
                found[several[0]] = _of_question([rows[number] for number in ordered], golds, likeness)
        return found

    return values


def _of_question(rows: list[dict], golds: list[str], likeness: Callable[[str, str], float]) -> float:
    said = next((row for row in rows if not is_no_answer(row["written"])), None)
    if golds == [NO_ANSWER] or said is None:
        return float(golds == [NO_ANSWER] and said is None)
    span = span_of(said["source"], said["written"])
    answer = said["source"][slice(*span)] if span else said["written"]
    return max(likeness(answer, gold) for gold in golds)


METRICS = {
    "squad_f1": mean_of(_judged(token_f1), needs="written"),
    "squad_em": mean_of(_judged(em), needs="written"),
    "squad_f1_has_answer": mean_of(_judged(token_f1, unanswered=False), needs="written"),
    "squad_em_no_answer": mean_of(_judged(em, answered=False), needs="written"),
}
