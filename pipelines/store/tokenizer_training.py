"""Train a tokenizer on the user's own text: deterministic, cased, with GLM's special tokens as its first ids.

30 MB of English text take about 10 CPU seconds (wordpiece, bpe) or 70 (unigram). Every different word takes time: of
text whose words hardly repeat, as phrases of scripts without spaces, codes and genes, less is read.
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import tokenizers
from annotated_types import Ge
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from glm_model.tokenizer import CLS, EOP, GMASK, LONGEST_WORD, MASK, SMASK, SOP, WORD_PARTS, Tokenizer
from infra.config import Count
from infra.errors import DataError, UserError

SPECIAL = ("[PAD]", "[UNK]", CLS, MASK, SMASK, GMASK, SOP, EOP)

_DEFAULT_SAMPLE = Count(30_000_000)
# Characters among which a word may be too long. Not all that end a word: the most frequent ones make the search fast.
_LONG_RUN = re.compile(
    rf"[^\s!-/:-@\[-`{{-~\u2010-\u2027\u3000-\u3002\u3400-\u4dbf\u4e00-\u9fff\uff0c]{{{LONGEST_WORD + 1},}}"
)
_LONGEST_OF_BPE = 1000  # characters; clauses of scripts without spaces are shorter
# As the pattern of byte-level BPE has it: letters, or digits, or signs.
_LONG_WORD = re.compile(
    "|".join(rf"{kind}{{{_LONGEST_OF_BPE}}}(?=\S)" for kind in (r"[^\W\d_]", r"\d", r"(?:[^\w\s]|_)"))
)
# What each algorithm takes for words, roughly; WordPiece cuts ideographs apart.
_WORDS = {
    "wordpiece": re.compile(r"[^\W\u3400-\u9fff\uf900-\ufaff]+"),
    "bpe": re.compile(r"\w+"),
    "unigram": re.compile(r"\S+"),
}
_LOOKED_AT = 1_000_000  # characters in which words are counted
_SELDOM_AGAIN = 0.5  # share of the text in different words, from which on it counts as text whose words hardly repeat
_MOST_NEW = 8_000_000  # bytes of different words, by estimate; usual samples of prose stay far below it
_BLANKS = ("\n", "\t")  # SentencePiece trains on lines and never sees them
_SMALLEST = 512  # ids: 256 bytes or an alphabet, the special tokens, and some room for merges
_COVERED = 0.9999  # share of the text in characters that are in the alphabet; a word with another one is [UNK]
_ALWAYS = 256  # most frequent characters that are in the alphabet in any case: a small sample has few of each


@dataclass
class TokenizerTraining:
    """How to train a tokenizer on the corpus."""

    algorithm: Literal["wordpiece", "bpe", "unigram"] = "wordpiece"
    """wordpiece (BERT), bpe (byte-level as in GPT-2, without unknown characters), or unigram (SentencePiece)."""
    vocab_size: int = 8192
    """Number of ids, GLM's special tokens included."""
    lowercase: bool = False
    """Turn text into lower case. Accents are always kept."""
    sample_bytes: Annotated[Count, Ge(1)] = _DEFAULT_SAMPLE
    """Maximum amount of text to train on, in bytes."""


def train(texts: Iterable[str], config: TokenizerTraining) -> Tokenizer:
    """A tokenizer for texts like these. The same texts give the same tokenizer, in any process."""
    sample = draw_sample(texts, config)
    check(sample, config)
    return fit(sample, config)


def draw_sample(texts: Iterable[str], config: TokenizerTraining) -> list[str]:
    """The first of these texts, up to `config.sample_bytes`; where words hardly repeat, as many as hold _MOST_NEW."""
    sample = list(_first_bytes(texts, config.sample_bytes))
    words, looked = set[str](), 0
    for text in sample:
        words.update(_WORDS[config.algorithm].findall(text, 0, _LOOKED_AT))
        looked += len(text[:_LOOKED_AT].encode())
        if looked >= _LOOKED_AT:
            break
    share = sum(len(word.encode()) for word in words) / max(looked, 1)
    return list(_first_bytes(sample, int(_MOST_NEW / share))) if share > _SELDOM_AGAIN else sample


def check(sample: list[str], config: TokenizerTraining) -> None:
    """Raises UserError for settings that cannot work, DataError for a sample without text."""
    if config.vocab_size < _SMALLEST:
        raise UserError(
            f"data.tokenizer.train.vocab_size must be at least {_SMALLEST}, got {config.vocab_size}",
            why="the alphabet and GLM's special tokens alone take several hundred ids",
            try_="--data.tokenizer.train.vocab_size=8192 (the default), which suits small models",
        )
    if not any(text.strip() for text in sample):
        raise DataError("there is nothing to train a tokenizer on", why="every document was empty or dropped")
    if config.algorithm == "unigram" and importlib.util.find_spec("sentencepiece") is None:
        raise UserError(
            "the tokenizer algorithm 'unigram' needs the package sentencepiece",
            why="it is not installed",
            try_="pip install sentencepiece, or use wordpiece or bpe",
        )


def fit(sample: list[str], config: TokenizerTraining) -> Tokenizer:
    """The tokenizer of a sample that `check` lets pass."""
    algorithm = {"wordpiece": _wordpiece, "bpe": _byte_level_bpe, "unigram": _unigram}[config.algorithm]
    special = [{"id": id_, "content": name} for id_, name in enumerate(SPECIAL)]
    return Tokenizer(json.dumps({**algorithm(sample, config), "added_tokens": special}, ensure_ascii=False))


def _first_bytes(texts: Iterable[str], limit: int) -> Iterator[str]:
    """Texts up to `limit` bytes of UTF-8; the last one is cut at a character."""
    left = int(limit)
    for text in texts:
        data = text.encode(errors="replace")
        yield data[:left].decode(errors="ignore")
        left -= len(data)
        if left <= 0:
            return


# --- algorithms: the sections of a tokenizer.json -------------------------------------------------------------------


def _wordpiece(sample: list[str], config: TokenizerTraining) -> dict[str, Any]:
    trained = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD))
    trained.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=config.lowercase
    )
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if any(_has_long_words(text, trained) for text in sample):
        cut = pre_tokenizers.Split(tokenizers.Regex(WORD_PARTS), behavior="isolated")
        trained.pre_tokenizer = pre_tokenizers.Sequence([trained.pre_tokenizer, cut])
    trained.decoder = decoders.WordPiece()
    alphabet = _alphabet(sample, trained.normalizer, config.vocab_size // 3)
    # The trainer numbers "##a", "##b", ... as it meets them while walking a randomly seeded hash map, and breaks ties
    # between merges by these numbers. Naming them beforehand, in a fixed order, is what makes it deterministic.
    continuing = [f"##{c}" for c in alphabet if _can_continue(trained, c)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[*SPECIAL, *continuing],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix="##",
        show_progress=False,
    )
    trained.train_from_iterator(sample, trainer, length=len(sample))
    return json.loads(trained.to_str())


def _has_long_words(text: str, trained: tokenizers.Tokenizer) -> bool:
    """Whether a text has words that WordPiece would take for unknown because of their length, such as clauses of
    scripts without spaces. Only then are words cut, so that other corpora keep the tokenizer that they had.

    A higher limit would be slow: WordPiece takes 0.7 ms for a word of 100 characters, 106 ms for one of 1,000.
    """
    return any(
        len(word) > LONGEST_WORD
        for run in _LONG_RUN.findall(text)
        for word, _ in trained.pre_tokenizer.pre_tokenize_str(trained.normalizer.normalize_str(run))
    )


def _byte_level_bpe(sample: list[str], config: TokenizerTraining) -> dict[str, Any]:
    trained = tokenizers.Tokenizer(models.BPE())
    if config.lowercase:
        trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(map(bounded_words, sample), trainer, length=len(sample))
    return json.loads(trained.to_str())


def bounded_words(text: str) -> str:
    """The text with a space inside words of over 1,000 characters, such as sequences of genes: a merge walks through
    the word that it is in. Nothing of that length is learned whole. The words of WordPiece are cut by its own rule,
    those of SentencePiece by its lines.
    """
    if max(map(len, text.split()), default=0) <= _LONGEST_OF_BPE:
        return text
    return _LONG_WORD.sub(r"\g<0> ", text)


def _unigram(sample: list[str], config: TokenizerTraining) -> dict[str, Any]:
    """By SentencePiece: the trainer of `tokenizers` walks a randomly seeded hash map, so its results vary."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_lines(sample, config.lowercase),
        model_writer=model,
        model_type="unigram",
        vocab_size=config.vocab_size - len(SPECIAL) - len(_BLANKS) + 1,  # + 1: its own unknown piece, dropped below
        hard_vocab_limit=False,
        character_coverage=_COVERED,
        normalization_rule_name="identity",
        num_threads=2,  # part of the result: sums are added up per thread
        unk_id=0,
        bos_id=-1,
        eos_id=-1,
        pad_id=-1,
        minloglevel=2,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    scored = [[trained.id_to_piece(i), round(trained.get_score(i), 6)] for i in range(1, trained.get_piece_size())]
    usual = scored[len(scored) // 2][1]
    vocab = [*([name, 0.0] for name in SPECIAL), *([blank, usual] for blank in _BLANKS), *scored]
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    return {
        "normalizer": {"type": "Lowercase"} if config.lowercase else None,
        "pre_tokenizer": metaspace,
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": SPECIAL.index("[UNK]"), "vocab": vocab, "byte_fallback": False},
    }


def _lines(sample: list[str], lowercase: bool) -> Iterator[str]:
    """Lines cut to 1,000 characters: SentencePiece skips those of more than 4,192 bytes."""
    for text in sample:
        for line in text.split("\n"):
            for start in range(0, len(line), 1000):
                part = line[start : start + 1000]
                yield part.lower() if lowercase else part


# --- alphabet ---------------------------------------------------------------------------------------------------------


def _alphabet(sample: list[str], normalizer: Any, limit: int) -> list[str]:
    """The most frequent characters of the normalised text, in code point order; printable ASCII always."""
    counts = np.zeros(0x110000, dtype=np.int64)
    for text in sample:
        found, times = np.unique(np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32), return_counts=True)
        counts[found] += times
    frequency: dict[str, int] = {chr(code): 1 for code in range(33, 127)}
    for code in np.flatnonzero(counts):
        for c in normalizer.normalize_str(chr(code)) if normalizer else chr(code):
            if not c.isspace():
                frequency[c] = frequency.get(c, 0) + int(counts[code])
    ranked = sorted(frequency, key=lambda c: (-frequency[c], c))
    covered = np.cumsum([frequency[c] for c in ranked]) / sum(frequency.values())
    enough = min(limit, max(_ALWAYS, int(np.searchsorted(covered, _COVERED)) + 1))
    ascii_ = [c for c in frequency if c.isascii() and (normalizer is None or normalizer.normalize_str(c) == c)]
    return sorted({*ranked[:enough], *ascii_})


def _can_continue(trained: tokenizers.Tokenizer, c: str) -> bool:
    """Whether a word may hold `c` after its first character: punctuation and CJK characters stand alone."""
    text = trained.normalizer.normalize_str(f"a{c}")
    return len(trained.pre_tokenizer.pre_tokenize_str(text)) == 1
