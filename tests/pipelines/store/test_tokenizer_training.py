"""A trained tokenizer: GLM's ids first, the size asked for, the same in every process."""

import gzip
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import tokenizers

from glm_model.tokenizer import SpecialTokens, Tokenizer
from infra.config import Count
from infra.errors import DataError, UserError
from pipelines.store.tokenizer_training import SPECIAL, TokenizerTraining, draw_sample, train

ROOT = Path(__file__).resolve().parents[3]
WIKI = ROOT / ".." / "shared" / "data" / "corpora" / "enwiki_wikiextractor" / "AA" / "wiki_05.gz"
TEXTS = [
    "The Straße of naïve Peter, where cafés open at 5:30 and 中文 is read; [MASK] and [CLS] are words here.",
    *(f"Word number {i} of {i * 7919 % 1000} stands for w{i:x}q{i * i % 97}, isn't it?\nYes!" for i in range(1500)),
]
ALGORITHMS = ["wordpiece", "bpe", "unigram"]


def trained(algorithm: str, **settings) -> Tokenizer:
    if algorithm == "unigram":
        pytest.importorskip("sentencepiece")
    return train(iter(TEXTS), TokenizerTraining(**{"algorithm": algorithm, "vocab_size": 600, **settings}))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_special_ids_and_size(algorithm, tmp_path):
    tokenizer = trained(algorithm)
    assert tokenizer.special == SpecialTokens(pad=0, unk=1, cls=2, mask=3, smask=4, gmask=5, sop=6, eop=7)
    assert tuple(tokenizer.surfaces()[:8]) == SPECIAL
    assert tokenizer.vocab_size == len(tokenizer.surfaces()) == 600
    assert not {0, 2, 3, 4, 5, 6, 7} & set(tokenizer.encode("[MASK] and [CLS] of <|startofpiece|>").tolist())
    tokenizer.save(str(tmp_path))
    assert Tokenizer.load(str(tmp_path)).to_json() == tokenizer.to_json()
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size() == 600


def test_case_accents_and_cjk_are_kept():
    text = "The Straße of naïve cafés, 中文"
    wordpiece, bpe = trained("wordpiece"), trained("bpe")
    assert wordpiece.decode(wordpiece.encode(text)) == text
    assert [wordpiece.surface(i) for i in wordpiece.encode("中文")] == ["中", "文"]
    assert bpe.decode(bpe.encode(text + "\n🙂")) == text + "\n🙂"
    lower = trained("wordpiece", lowercase=True)
    assert lower.decode(lower.encode(text)) == text.lower()
    assert lower.encode("THE").tolist() == lower.encode("the").tolist()


def test_the_same_texts_give_the_same_tokenizer_in_any_process():
    pytest.importorskip("sentencepiece")
    digests = [trained(algorithm).digest for algorithm in ALGORITHMS]
    assert [trained(algorithm).digest for algorithm in ALGORITHMS] == digests
    code = (
        "from tests.pipelines.store.test_tokenizer_training import ALGORITHMS, trained\n"
        "print(*(trained(algorithm).digest for algorithm in ALGORITHMS))"
    )
    env = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == digests


def test_ties_on_real_text_do_not_matter():
    if not WIKI.exists():
        pytest.skip("shared/data/corpora is not there")
    texts = gzip.decompress(WIKI.read_bytes()).decode().split("</doc>\n")
    config = TokenizerTraining(algorithm="wordpiece", vocab_size=4096, sample_bytes=Count(300_000))
    assert len({train(texts, config).digest for _ in range(3)}) == 1


def test_only_the_sample_counts():
    config = TokenizerTraining(vocab_size=512, sample_bytes=Count(5000))
    more = [*TEXTS, "Another text after the sample " * 100]
    assert train(TEXTS, config).digest == train(more, config).digest
    assert train(TEXTS[100:], config).digest != train(TEXTS, config).digest


def test_impossible_trainings_are_refused():
    with pytest.raises(DataError, match="nothing to train a tokenizer on"):
        train(iter(["", " \n"]), TokenizerTraining())
    with pytest.raises(UserError, match="vocab_size must be at least 512, got 100"):
        train(iter(TEXTS), TokenizerTraining(vocab_size=100))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_of_text_whose_words_hardly_repeat_less_is_read(algorithm, monkeypatch):
    """Every different word takes the trainer time."""
    monkeypatch.setattr("pipelines.store.tokenizer_training._LOOKED_AT", 50_000)
    monkeypatch.setattr("pipelines.store.tokenizer_training._MOST_NEW", 60_000)
    config = TokenizerTraining(algorithm=algorithm)
    rng = random.Random(0)
    codes = [" ".join("".join(rng.choices("abcdef0123456789", k=20)) for _ in range(50)) for _ in range(200)]
    prose = [" ".join(rng.choices(("the", "river", "carried", "a", "letter"), k=200)) for _ in range(200)]
    size = sum(map(len, draw_sample(codes, config)))
    assert 55_000 < size < 70_000 < sum(map(len, codes))
    assert draw_sample(prose, config) == prose
    assert draw_sample(codes[:20], config) == codes[:20], "little text is read whole"


def test_ideographs_are_words_to_wordpiece_and_parts_of_phrases_to_bpe(monkeypatch):
    monkeypatch.setattr("pipelines.store.tokenizer_training._MOST_NEW", 30_000)
    rng = random.Random(0)
    phrases = ["".join(rng.choices("天地玄黄宇宙洪荒日月盈昃", k=12)) + "。" for _ in range(2000)]
    assert draw_sample(phrases, TokenizerTraining(algorithm="wordpiece")) == phrases
    assert len(draw_sample(phrases, TokenizerTraining(algorithm="bpe"))) < 1000
