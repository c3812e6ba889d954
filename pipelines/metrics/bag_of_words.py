"""What a bag of words reaches: tf-idf and logistic regression, on the train split of the same task.

Whoever does not beat it has learned nothing that word counts do not know. Of the 28 items of CB's dev split it gets
67.9 % right, where one answer to all gets 57.1 %.
"""

from collections.abc import Callable, Sequence

import numpy as np

from pipelines.questions.pattern import Pattern
from pipelines.questions.task import Item, Task

MOST = 50_000
"""Items of the train split that it learns from, the first ones."""
# scikit-learn's default loses words of one letter, keeps a run of Chinese as one word, and drops punctuation; a
# character of a script without spaces is a word here. Its English stop words drop "not", "no" and "never".
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = rf"[{_CJK}]|(?:(?![{_CJK}])\w)+|[^\w\s]"


def bag_of_words(task: Task, pattern: Pattern, train: Sequence[Item]) -> Callable[[Sequence[Item]], np.ndarray] | None:
    """What gives its choice [N] for each of some items: the likeliest class of what the pattern shows; or, of
    candidates of the items' own, the one that is likeliest the right one by its words. None where the train split
    cannot teach it: it has fewer than two classes.
    """
    known = [item for item in train[:MOST] if item.gold is not None]
    if task.labels:
        golds = [task.gold_index(item) for item in known]
        probabilities = _learned([_shown(task, pattern, item) for item in known], golds)
        if probabilities is None:
            return None

        def classes(items: Sequence[Item]) -> np.ndarray:
            found, names = probabilities([_shown(task, pattern, item) for item in items])
            return names[found.argmax(1)]

        return classes
    texts = [candidate for item in known for candidate in item.candidates]
    is_right = [number == task.gold_index(item) for item in known for number in range(len(item.candidates))]
    probabilities = _learned(texts, is_right)
    if probabilities is None:
        return None

    def candidates(items: Sequence[Item]) -> np.ndarray:
        found, _ = probabilities([candidate for item in items for candidate in item.candidates])
        ends = np.cumsum([len(item.candidates) for item in items])
        return np.array([part.argmax() for part in np.split(found[:, 1], ends[:-1])])

    return candidates


def _learned(
    texts: Sequence[str], golds: Sequence[int | bool | None]
) -> Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]] | None:
    """What gives (probability [N, C] of each class for texts, the classes [C]), learned from texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    if len({*golds}) < 2:
        return None
    vectorizer = TfidfVectorizer(token_pattern=_WORD, sublinear_tf=True)
    model = LogisticRegression(max_iter=1000).fit(vectorizer.fit_transform(texts), golds)
    return lambda asked: (model.predict_proba(vectorizer.transform(asked)), model.classes_)


def _shown(task: Task, pattern: Pattern, item: Item) -> str:
    """What the label follows from; of an answer that is to be written also this."""
    written = item.candidates[:1] if task.kind == "write" else ()
    return "\n".join((*(item.fields[name] for name in pattern.fields), *written))
