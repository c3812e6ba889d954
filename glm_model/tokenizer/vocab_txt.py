"""A BERT vocab.txt as a tokenizer.json: the file lists pieces and does not say how text is normalised before.

That stands in the tokenizer_config.json beside it; without one the pieces tell it, because a vocabulary holds no letter
that its normalisation would have changed.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Any

# bert-base-uncased has upper-case forms of none of its letters, bert-base-chinese (uncased) of 4 %, by mistake of its
# authors. A cased vocabulary of A to Z beside Greek and Cyrillic small letters has those of 29 %.
_CASED_FROM = 0.2
_ACCENTED_FROM = 0.001  # share of pieces with a mark: a single term that a user has added is not the rule
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def spec_of(content: str, settings: dict[str, Any], *, lowercase: bool | None, url: str) -> dict[str, Any]:
    """A tokenizer.json, parsed. settings: what tokenizer_config.json says, {} without one. lowercase: overrules both.

    Raises ValueError where the file is not a BERT vocabulary, or its settings ask for what this form cannot do.
    """
    vocab = _numbered(content)
    if "[UNK]" not in vocab:
        raise ValueError(
            "this vocab.txt has no [UNK] line, so it is not a BERT vocabulary. Give a tokenizer.json instead"
        )
    others = [name for name in ("word_tokenizer_type", "subword_tokenizer_type") if settings.get(name)]
    if settings.get("do_basic_tokenize") is False or others:
        said = f"{others[0]}={settings[others[0]]!r}" if others else "do_basic_tokenize=false"
        raise ValueError(
            f"{url} does not cut text as BERT does: the tokenizer_config.json beside it says {said}. Give its "
            "tokenizer.json instead"
        )
    said = _flag(settings, "do_lower_case", url)
    if lowercase is None:
        lowercase = not is_cased(vocab) if said is None else said
    strip_accents = _flag(settings, "strip_accents", url)  # None: as lowercase
    if said is None and "strip_accents" not in settings and lowercase and keeps_accents(vocab):
        strip_accents = False
    chinese = _flag(settings, "tokenize_chinese_chars", url)
    return {
        "added_tokens": [{"id": vocab[name], "content": name} for name in _SPECIAL if name in vocab],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True if chinese is None else chinese,
            "strip_accents": strip_accents,
            "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }


def is_cased(pieces: Iterable[str]) -> bool:
    """Whether these are the pieces of text that was not made lower case, in any script that has two cases."""
    letters = set("".join(piece for piece in pieces if not _is_markup(piece)))
    # By category: Roman numerals and circled letters have two cases too, and are no letters.
    small = {c for c in letters if unicodedata.category(c) == "Ll" and c.upper().lower() == c}
    large = {c for c in letters if unicodedata.category(c) == "Lu" and c.lower() != c}
    return bool(large) and len(large) >= _CASED_FROM * len(small)


def keeps_accents(pieces: Iterable[str]) -> bool:
    """Whether these are the pieces of text that kept its marks: German umlauts, Cyrillic short i, Japanese ga."""
    pieces = [piece for piece in pieces if not _is_markup(piece)]
    marked = sum(not piece.isascii() and _stripped(piece) != piece for piece in pieces)
    return marked > 0 and marked >= _ACCENTED_FROM * len(pieces)


def _stripped(piece: str) -> str:
    """As BertNormalizer strips accents, which also takes Hangul syllables apart."""
    return "".join(c for c in unicodedata.normalize("NFD", piece) if unicodedata.category(c) != "Mn")


def _is_markup(piece: str) -> bool:
    return len(piece) > 2 and (piece[0], piece[-1]) in (("[", "]"), ("<", ">"))


def _numbered(content: str) -> dict[str, int]:
    # Not splitlines(), which would cut at tokens such as U+2028.
    lines = [line.rstrip("\r") for line in content.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    vocab = {token: id_ for id_, token in enumerate(lines)}
    # A token listed twice keeps its last line (bert-base-chinese has 53 of them). The first line keeps its id under a
    # name that no text reaches, so that ids have no gaps and other readers number the special tokens alike.
    return vocab | {f"[line {id_} unused]": id_ for id_ in sorted(set(range(len(lines))) - set(vocab.values()))}


def _flag(settings: dict[str, Any], name: str, url: str) -> bool | None:
    value = settings.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(
            f"the tokenizer_config.json beside {url} says {name}={value!r}: expected true, false or null. Correct it"
        )
    return value
