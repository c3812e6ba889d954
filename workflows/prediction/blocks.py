"""The answers to a block of rows, as a worker makes them: our columns, row by row.

A block is what is handed to a worker. Its rows are asked in batches of about one length, which follow from the block
alone: so an answer depends neither on the number of workers nor on what was done before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from glm_model import GLM, Classifier
from glm_model.tokenizer import Tokenizer
from infra import storage
from infra.errors import DataError
from pipelines.questions.question import Overlong, Question
from pipelines.questions.rows import BadRow, Row
from workflows.answering.answers import cut
from workflows.prediction.inputs import nulls
from workflows.prediction.kind import Kind, Shown

ROWS = 1024  # of a block

Block = Sequence[Row | BadRow]


@dataclass(frozen=True)
class Answering:
    """How blocks are answered. It is sent to workers."""

    kind: Kind
    overlong: Overlong
    batch_positions: int

    def __call__(self, model: GLM | Classifier, tokenizer: Tokenizer, block: Block) -> pa.RecordBatch:
        """Our columns of a block. Raises DataError for a row that is too long, where those are refused."""
        kind, positions = self.kind, model.config.positions
        asked = [_question(kind, row, tokenizer, positions, self.overlong) for row in block]
        nothing = tuple(nulls(1, type_)[0].as_py() for type_ in kind.columns.values())
        cells: list[tuple[Any, ...]] = [nothing] * len(block)
        for numbers in _batches(kind, asked, self.batch_positions):
            batch = [one for number in numbers if isinstance(one := asked[number], Question)]
            for number, found in zip(numbers, kind.answer(model, tokenizer, batch), strict=True):
                cells[number] = found
        arrays = [pa.array([row[place] for row in cells], type_) for place, type_ in enumerate(kind.columns.values())]
        arrays.append(pa.array([one.cut if isinstance(one, Question) else None for one in asked], pa.int32()))
        arrays.append(pa.array([one if isinstance(one, str) else None for one in asked], pa.string()))
        return pa.RecordBatch.from_arrays(arrays, [*kind.columns, "tokens_cut", "reason"])


def shown_or_reason(kind: Kind, row: Row | BadRow) -> Shown | str:
    """How a row is asked, or why no model can be asked about it."""
    if isinstance(row, BadRow):
        return row.reason
    try:
        return kind.show(row)
    except ValueError as error:
        return str(error)


def _question(
    kind: Kind, row: Row | BadRow, tokenizer: Tokenizer, positions: int, overlong: Overlong
) -> Question | str:
    """The question about a row, or why there is none."""
    shown = shown_or_reason(kind, row)
    if not isinstance(shown, str):
        try:
            return kind.ask(shown, tokenizer, positions)
        except ValueError as error:
            if overlong == "error":
                raise DataError(f"{row.place}: {error}", try_="--overlong=cut, or skip") from error
            shown = str(error)
    return f"{storage.base_name(row.url)}:{row.line}: {shown}"


def _batches(kind: Kind, asked: Sequence[Question | str], most: int) -> Iterator[list[int]]:
    """Numbers of the rows of each batch, in the order of their lengths. most: positions of a batch."""
    lengths = {number: kind.positions(one) for number, one in enumerate(asked) if isinstance(one, Question)}
    ordered = sorted(lengths, key=lengths.__getitem__)  # equal ones as the rows stand
    for part in cut([lengths[number] for number in ordered], positions=most):
        yield ordered[part]
