"""Rows of text that nobody wrote: what a run costs is measured on them where there is no store yet."""

import numpy as np

from glm_model.layout import Marks
from pipelines.blanks.draw import moments
from pipelines.blanks.mixture import resolve
from pipelines.feed.examples import FeedSettings
from pipelines.ragged import RowBatch, Segments, offsets_of, take_rows
from pipelines.store.packing import pack
from pipelines.token_classes import HARD_END, TokenClasses
from workflows.settings.recipe import Recipe

_SENTENCE = 25  # tokens
_ROWS = 64


def synthetic_rows(recipe: Recipe, document_tokens: float) -> tuple[RowBatch, FeedSettings]:
    """Rows that are segmented and packed as a store's are, and how a run reads them.

    Documents have `document_tokens` tokens on average, exponentially distributed, in sentences of 25 tokens:

        cls w w .. w end w w .. w end .. w eos   cls w .. w          cls w .. w eos
        `----------- a document -----------'    `---- a document of two segments ---'

    Raises UserError where a segment may not fit into a row.
    """
    length, width, mixture = recipe.data.sequence_length, recipe.data.row_width, resolve(recipe.blanks)
    eos, cls, word, end = range(4)
    classes = np.array([0, 0, 0, HARD_END], np.uint8)
    token_classes = TokenClasses(cls, eos, dict.fromkeys(("mask", "smask", "gmask"), word), classes)
    sizes, ends = _segment_sizes(document_tokens, length, _ROWS * width)
    offsets = offsets_of(np.array(sizes))
    tokens = np.full(offsets[-1], word, np.uint16)
    tokens[::_SENTENCE] = end
    tokens[offsets[1:][ends] - 1] = eos
    tokens[offsets[:-1]] = cls
    ids = np.arange(len(sizes)).astype(np.uint64)
    segments = Segments(tokens, offsets, ids, np.diff(offsets))
    rows = take_rows(segments, pack(*moments(mixture, segments, token_classes), ids, width=width))
    settings = FeedSettings("train", mixture, token_classes, Marks(0, 0, 0), recipe.blanks.seed, width, length, None)
    return rows, settings


def _segment_sizes(document_tokens: float, length: int, total: int) -> tuple[list[int], list[bool]]:
    """(tokens of each segment, whether it is its document's last) of documents with `total` tokens together."""
    rng, sizes, ends, left = np.random.default_rng(0), [], [], total
    while left > 0:
        text = min(1 + int(rng.exponential(document_tokens)), left)
        whole, rest = divmod(text, length - 2)
        of_document = [length] * whole + ([rest + 2] if rest else [])
        sizes += of_document
        ends += [False] * (len(of_document) - 1) + [True]
        left -= sum(of_document)
    return sizes, ends
