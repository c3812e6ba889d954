"""What a model writes into the masks of questions: texts that end where the model ends them, or at their limit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from glm_model import layout
from glm_model.decoding import Decoding
from glm_model.generation.fill import fill_tokens
from glm_model.generation.prompts import spliced
from glm_model.generation.sampling import Limits
from glm_model.generation.scoring import score_tokens
from glm_model.model import GLM
from glm_model.tokenizer import Tokenizer
from pipelines.questions.generation import Generation
from pipelines.questions.question import Question


@dataclass(frozen=True)
class Writing:
    """What was written into one mask."""

    text: str
    tokens: int
    """Without the end."""
    ended: bool
    """Whether the model ended it; else it was cut at the most tokens that it may have."""


WRITTEN = pa.struct([("text", pa.string()), ("tokens", pa.int32()), ("ended", pa.bool_())])
"""The same in a table."""


def decoding_of(generation: Generation) -> Decoding:
    """The same in the words of `fill`. One beam is not ranked."""
    return Decoding(
        max_tokens=generation.max_tokens,
        min_tokens=generation.min_tokens,
        beams=generation.beams,
        length_penalty=generation.length_penalty if generation.beams > 1 else 1.0,
        no_repeat_ngram=generation.no_repeat_ngram,
    )


def write(model: GLM, tokenizer: Tokenizer, questions: Sequence[Question]) -> list[tuple[Writing, ...]]:
    """What is written into the masks of each question, left to right. All are written alike: of one task.

    Control tokens are never written. Raises ValueError when the model's weights are not finite.
    """
    generation, special = questions[0].generation, tokenizer.special
    assert generation is not None, "the task generates"
    ends = (special.eop, special.eos)
    limits = Limits(
        sop=special.sop,
        stop=ends,
        banned=tuple(sorted(tokenizer.control_ids.difference(ends))),
        vocab_size=tokenizer.vocab_size,
    )
    found = fill_tokens(model, [one.prompt for one in questions], decoding_of(generation), limits)
    return [tuple(_writing(tokenizer, one.tokens, generation) for one in sample) for (sample,) in found]


def rate_targets(
    model: GLM, questions: Sequence[Question], marks: layout.Marks, vocab_size: int
) -> list[tuple[float, ...]]:
    """log p in nats of the right texts of each question, with their end; NaN for one that is longer than the model."""
    known = [number for number, one in enumerate(questions) if one.candidates]
    scores = score_tokens(
        model,
        [questions[number].prompt for number in known],
        [[questions[number].of_each_mask(n) for n in range(len(questions[number].candidates))] for number in known],
        marks=marks,
        vocab_size=vocab_size,
    )
    found: list[tuple[float, ...]] = [()] * len(questions)
    for number, several in zip(known, scores, strict=True):
        lacks = questions[number].target_cut or [0] * len(several)
        found[number] = tuple(np.nan if cut else one.logprob for one, cut in zip(several, lacks, strict=True))
    return found


def judged_text(shown: str, texts: Sequence[str], *, fills: bool) -> str:
    """What stands for an answer: the text of the mask; or, where `Question.fills`, the whole text with all of them."""
    return "".join(spliced(shown, texts)) if fills else texts[0]


def right_texts(question: Question) -> Sequence[str]:
    """What an answer is compared with: the candidates, or the whole text with its masks filled rightly."""
    if not question.fills:
        return question.answers
    return (judged_text(question.text, question.item.blanks, fills=True),) if question.item.blanks else ()


def written_columns(
    questions: Sequence[Question], written: Sequence[Sequence[Mapping[str, Any]]]
) -> dict[str, list[Any]]:
    """The columns `written` and `blanks` of items.parquet; null where nothing is generated. written: `Writing` of each
    mask, as WRITTEN has them.
    """
    columns: dict[str, list[Any]] = {"written": [], "blanks": []}
    for question, parts in zip(questions, written, strict=True):
        if not parts:
            columns["written"].append(None)
            columns["blanks"].append(None)
            continue
        right = question.item.blanks or question.answers[:1] or [None] * len(parts)
        sizes = [len(tokens) for tokens in question.of_each_mask(0)] if question.candidates else [None] * len(parts)
        texts = [part["text"] for part in parts]
        columns["written"].append(judged_text(question.text, texts, fills=question.fills))
        columns["blanks"].append(
            [
                {"right": one, "right_tokens": size, "written": text, "tokens": part["tokens"], "ended": part["ended"]}
                for one, size, text, part in zip(right, sizes, texts, parts, strict=True)
            ]
        )
    return columns


def _writing(tokenizer: Tokenizer, tokens: Sequence[int], generation: Generation) -> Writing:
    text = tokenizer.decode(tokens, inside=True).strip()
    return Writing(text, len(tokens), ended=len(tokens) < generation.max_tokens)
