"""MultiRC: is an answer to a question about a passage right? A question has several answers, any number of them right.

Data: SuperGLUE's MultiRC (train.jsonl, val.jsonl, test.jsonl: a passage with its questions in a row); research use.
Paper: Khashabi et al. (NAACL 2018); patterns and words of Du et al. (ACL 2022), tasks/superglue/pvp.py.
Metrics, as SuperGLUE's official evaluation: F1 of the right answers over all answers (F1a), and the share of questions
of which every answer is judged right (EM). Passages are groups. Numbers of questions and answers are unique in a file.
"""

import string
from collections.abc import Iterator

from pipelines.questions.nested import nested, part, part_of_row, parts
from pipelines.questions.pattern import Pattern
from pipelines.questions.rows import Row
from pipelines.questions.task import Item, take

VERSION = 1
LABELS = ("0", "1")
CONTEXT = ("passage",)
METRICS = ("f1a", "em", "accuracy")
_YES_NO = {"0": "No", "1": "Yes"}
PATTERNS = (
    Pattern("{passage~}. Question: {question}? Is it {answer}? {mask}.", _YES_NO),
    Pattern('{passage~}. Question: {question}? Is the correct answer "{answer}"? {mask}.', _YES_NO),
    Pattern(
        '{passage~}. Based on the previous passage, {question}? Is "{answer}" a correct answer? {mask}.',
        _YES_NO,
    ),
    Pattern("{passage~} {question}- [{mask}]{answer}", {"0": "False", "1": "True"}),
    Pattern("{passage~}. Question: {question}? {answer}? {mask}.", _YES_NO),
)


def unpack(row: Row) -> Iterator[Row]:
    """A row for each answer to each question about the passage."""
    (number,) = take(row, "idx")
    passage = nested(row, "passage", dict)
    (text,) = part(passage, "text", of="the passage")
    for asked in parts(passage, "questions", of="the passage"):
        question, question_number = part(asked, "question", "idx", of="a question")
        for given in parts(asked, "answers", of=f"the question {question_number}"):
            answer, answer_number = part(given, "text", "idx", of=f"an answer to the question {question_number}")
            yield part_of_row(
                row,
                passage=text,
                question=question,
                answer=answer,
                label=given.get("label"),
                idx=f"{number}/{question_number}/{answer_number}",
            )


def item(row: Row) -> Item:
    """Passage and question lose their final marks, as in the authors' code. An answer may be empty."""
    passage, question, answer, idx = take(row, "passage", "question", "answer", "idx")
    joint = idx.rpartition("/")[0]
    return Item(
        id=idx,
        fields={"passage": _without_end(passage), "question": _without_end(question), "answer": answer},
        gold=row.fields.get("label") or None,
        group=joint.rpartition("/")[0],
        joint=joint,
    )


def _without_end(text: str) -> str:
    return text.rstrip().rstrip(string.punctuation)
