"""Segments of one sentence are counted by source, and told where they are most of it."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from helpers.runners import one_by_one

from infra.config import Count
from pipelines.blanks.mixture import BlanksConfig
from pipelines.config import DataConfig, TokenizerConfig
from pipelines.corpus.sources import Source
from pipelines.prepare import preparation_of, prepare
from pipelines.ragged import Segments
from pipelines.store.single_sentences import sample_single_sentences
from pipelines.store.tokenizer_training import TokenizerTraining
from pipelines.token_classes import TokenClasses, classify

WORDS = {
    "hindi": ("घर नदी पहाड़ किताब सूरज चाँद पेड़ बच्चा माँ रास्ता पानी हवा", "।"),
    "urdu": ("گھر دریا پہاڑ کتاب سورج چاند درخت بچہ ماں راستہ پانی ہوا", "۔"),
    "amharic": ("ቤት ወንዝ ተራራ መጽሐፍ ፀሐይ ጨረቃ ዛፍ ልጅ እናት መንገድ ውሃ አየር", "።"),
    "english": ("house river hill book sun moon tree child mother road water air", "."),
    "unmarked": ("house river hill book sun moon tree child mother road water air", ""),
}


def sources(folder: Path) -> list[Source]:
    """150 documents in each language, of 12 sentences of 4 to 9 words."""
    rng = random.Random(0)
    for name, (words, end) in WORDS.items():
        sentences = [" ".join(rng.choices(words.split(), k=rng.randint(4, 9))) + end for _ in range(12 * 150)]
        texts = [" ".join(sentences[at : at + 12]) for at in range(0, 12 * 150, 12)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return [Source("jsonl", str(folder / f"{name}.jsonl"), name=name) for name in WORDS]


@pytest.mark.parametrize("mixture", ["glm_sent", "glm_doc"])
def test_a_source_of_single_sentences_is_told(tmp_path, capsys, mixture):
    config = DataConfig(
        sources(tmp_path),
        root=str(tmp_path / "data"),
        tokenizer=TokenizerConfig(train=TokenizerTraining(vocab_size=1024)),
        sequence_length=128,
        row_width=1024,
        validation_tokens=Count(1000),
    )
    prepare(preparation_of(config, BlanksConfig(mixture=mixture)), one_by_one())
    told = " ".join(capsys.readouterr().out.split())
    warned = [name for name in WORDS if f"of the segments of '{name}' have one sentence" in told]
    assert warned == (["unmarked"] if mixture == "glm_sent" else [])
    assert ("100% of the segments of 'unmarked'" in told) == (mixture == "glm_sent")


def test_the_last_sentence_of_a_segment_does_not_need_an_end():
    token_classes = TokenClasses(1, 0, {}, classify(["", "[CLS]", "word", ".", "##s"]))
    given = [[1, 2, 3, 0], [1, 2, 3, 2, 0], [1, 2, 2], [1, 2, 3], [1, 3, 3, 2, 3, 0], [1, 0]]
    tokens = np.array([token for one in given for token in one], np.uint16)
    offsets = np.cumsum([0, *map(len, given)])
    segments = Segments(tokens, offsets, np.zeros(6, np.uint64), np.zeros(6, np.int64))
    assert sample_single_sentences(segments, token_classes) == {"segments": 6, "single": 4}
    empty = Segments(tokens[:0], offsets[:1], segments.ids[:0], segments.num_bytes[:0])
    assert sample_single_sentences(empty, token_classes) == {}
