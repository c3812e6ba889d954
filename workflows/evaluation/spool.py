"""Questions that are kept in a temporary file, and read again by their numbers.

An evaluation asks questions of about one length together, so all of them have to be known before the first is asked.
Memory holds what orders them: some 60 bytes of each, however long it is.
"""

import hashlib
import json
import tempfile
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
import pyarrow as pa

from glm_model import layout
from pipelines.metrics.items_file import id_order, sorted_rows
from pipelines.questions.generation import Generation
from pipelines.questions.question import Question, Windows
from pipelines.questions.task import Item

_DIGEST_BYTES = 16
_IDS_AT_ONCE = 8192


class Spool:
    """Questions, numbered in the order in which they were added."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="glm-questions-")  # noqa: SIM115, `close` closes it
        self._ends, self._lengths = array("q", [0]), array("i")
        self._digests = bytearray()
        self._ids: list[pa.Array] = []
        self._new_ids: list[str] = []

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, question: Question) -> None:
        line = json.dumps(_plain(question), ensure_ascii=False, separators=(",", ":")).encode()
        self._file.write(line)
        self._ends.append(self._ends[-1] + len(line))
        self._lengths.append(question.positions)
        self._digests += hashlib.blake2b(line, digest_size=_DIGEST_BYTES).digest()
        self._new_ids.append(question.item.id)
        if len(self._new_ids) == _IDS_AT_ONCE:
            self._pack_ids()

    def read(self, numbers: Iterable[int]) -> list[Question]:
        """The questions of these numbers. Of an item no texts are kept."""
        found = []
        for number in numbers:
            self._file.seek(self._ends[number])
            found.append(_question(json.loads(self._file.read(self._ends[number + 1] - self._ends[number]))))
        return found

    def digest(self, number: int) -> bytes:
        """Hash of all that is asked, with the item's id and gold answer."""
        return bytes(self._digests[number * _DIGEST_BYTES : (number + 1) * _DIGEST_BYTES])

    def by_id(self) -> np.ndarray:
        """All numbers, in the order of items.parquet."""
        self._pack_ids()
        return id_order(pa.chunked_array(self._ids, pa.string()))

    def by_length(self) -> tuple[np.ndarray, np.ndarray]:
        """All numbers, by how many positions a question takes, equal ones by their ids; and these positions."""
        self._pack_ids()
        table = pa.table({"length": pa.array(np.array(self._lengths)), "id": pa.chunked_array(self._ids, pa.string())})
        order = sorted_rows(table, "length", "id")
        return order, np.array(self._lengths)[order]

    def lengths(self) -> np.ndarray:
        """How many positions each question takes, by its number."""
        return np.array(self._lengths)

    def close(self) -> None:
        self._file.close()

    def _pack_ids(self) -> None:
        self._ids.append(pa.array(self._new_ids, pa.string()))
        self._new_ids = []


def _plain(one: Question) -> list[Any]:
    """A question as a JSON value."""
    return [
        one.item.id,
        one.item.group,
        one.item.joint,
        one.item.golds,
        one.item.words,
        one.text,
        one.answers,
        one.prompt.tokens.tolist(),
        one.prompt.mask_positions.tolist(),
        [tokens.tolist() for tokens in one.candidates],
        one.count_end,
        one.gold,
        one.cut,
        one.kind,
        [one.windows.stride, one.windows.bidirectional] if one.windows else None,
        one.has_labels,
        list(astuple(one.generation)) if one.generation else None,
        one.item.blanks,
        one.item.source,
        one.pieces,
        one.fills,
        one.target_cut,
    ]


def _question(plain: Sequence[Any]) -> Question:
    name, group, joint, golds, words, *rest = plain
    text, answers, tokens, masks, candidates, count_end, gold, cut, kind, windows, labels, *of_generation = rest
    generation, blanks, source, pieces, fills, target_cut = of_generation
    told = {"blanks": tuple(blanks), "source": source}
    return Question(
        item=Item(id=name, fields={}, group=group, joint=joint, golds=tuple(golds), words=words, **told),
        text=text,
        answers=tuple(answers),
        prompt=layout.Prompt(np.array(tokens, np.int64), np.array(masks, np.int64)),
        candidates=tuple(np.array(one, np.int32) for one in candidates),
        count_end=count_end,
        gold=gold,
        cut=cut,
        kind=kind,
        windows=Windows(*windows) if windows else None,
        has_labels=labels,
        generation=Generation(*generation) if generation else None,
        pieces=tuple(pieces),
        fills=fills,
        target_cut=tuple(target_cut),
    )
