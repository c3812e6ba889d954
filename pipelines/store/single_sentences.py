"""Segments of one sentence, which the sentence objective can only blank whole: counted on a sample of each shard.

A user is told where they are most of a source: of a script or a tokenizer whose sentence ends we do not know, of text
without punctuation, of very short documents.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from infra.console import Console
from pipelines.ragged import Segments
from pipelines.token_classes import TokenClasses, sentence_ends

OBJECTIVE = "sentence"
WARNED = 0.5  # share of a source's segments above which a user is told
_SAMPLE = 100  # segments of each 4 MB of text: all of them would cost a twentieth of the tokenizer's time


def sample_single_sentences(segments: Segments, token_classes: TokenClasses) -> Counter[str]:
    """The number of "segments" that were looked at, the first ones, and of "single" ones: those with one sentence."""
    offsets = segments.offsets[: _SAMPLE + 1]
    if len(offsets) < 2:
        return Counter()
    tokens = segments.tokens[: offsets[-1]]
    ends = sentence_ends(tokens, token_classes.classes)
    last = offsets[1:] - 1
    ends[last] = False  # eos, or the last token of the text, behind which no other sentence comes
    ends[last - (tokens[last] == token_classes.eos)] = False
    single = ~np.logical_or.reduceat(ends, offsets[:-1])
    return Counter(segments=len(single), single=int(single.sum()))


def warn_of_single_sentences(shards: Iterable[Mapping[str, Mapping[str, int]]]) -> None:
    """Warn of the sources of which most segments have one sentence. shards: the counts of each, by source."""
    total: dict[str, Counter[str]] = {}
    for shard in shards:
        for source, counts in shard.items():
            total.setdefault(source, Counter()).update(counts)
    for source, counts in total.items():
        share = counts["single"] / max(counts["segments"], 1)
        if share > WARNED:
            Console().warn(
                f"{share:.0%} of the segments of {source!r} have one sentence, which the objective {OBJECTIVE!r} can "
                "only blank whole. Its documents are short, or mark no sentence ends that are known in this "
                "vocabulary; --blanks.mixture=glm_doc does without them"
            )
