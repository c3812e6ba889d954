"""Repair texts, then keep them or drop them with a reason. On clean text `light` costs below 2 % of tokenising.

A rule is fn(text) -> reason to drop, or None. Nothing here depends on the language, except the model of `languages`,
which reads the start of a text in up to 1 ms.
"""

from __future__ import annotations

import functools
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from infra.errors import UserError, nearest
from pipelines import plugins
from pipelines.corpus import languages

Rule = Callable[[str], str | None]

_CONTROL_BYTES = bytes([*range(9), *range(11, 32), 127])  # C0 and DEL without tab and line feed
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]+")
_C1_BYTES = re.compile(rb"\xc2[\x80-\x9f]")
# UTF-8 read as Windows-1252 or Latin-1: a lead byte shown as a letter, then what its continuation byte is shown as.
_MOJIBAKE = re.compile(
    r"[\u00c2\u00c3][\u0080-\u00bf]|\u00e2[\u0080\u20ac][\u0080-\u00bf\u2010-\u2122]|\u00ef\u00bb\u00bf|\u00ef\u00bf\u00bd"
)
_WORDS = re.compile(r"[\w\s]+")
_PROBE = 1 << 16


@dataclass
class CleanConfig:
    """What happens to a text before it is tokenised."""

    preset: Literal["off", "light", "strict"] = "light"
    """off: nothing; light: repairs and min_characters; strict: also symbol_ratio and repetition."""
    min_characters: int = 20
    """Shorter texts are dropped as too_short, with light and strict."""
    rules: list[str] = field(default_factory=list)
    """More rules: symbol_ratio, repetition, or the dotted name of your own function, fn(text) -> reason or None."""
    languages: list[str] = field(default_factory=list)
    """Keep only texts in these languages, given as ISO 639-1 codes (drop reason: language). Kin count too: zh keeps
    wuu and yue. Texts of fewer than 30 bytes are told by their script alone. Needs the extra `lang`.
    """


def clean(text: str, config: CleanConfig) -> tuple[str, tuple[str, ...]] | str:
    """(text, names of the repairs) of a kept text, or the reason to drop it."""
    repairs: tuple[str, ...] = ()
    if config.preset != "off":
        text, repairs = repair(text)
        if len(text) < config.min_characters or len(text.strip()) < config.min_characters:
            return "too_short"
    if config.rules or config.preset == "strict":
        for rule in _rules(config.preset, tuple(config.rules)):
            reason = rule(text)
            if reason is not None:
                return reason
    if config.languages and not in_languages(text, tuple(config.languages)):
        return "language"
    return text, repairs


def repair(text: str) -> tuple[str, tuple[str, ...]]:
    """The text without control characters, trailing blanks and mojibake, in NFC; and the names of the repairs made."""
    repairs = []
    for name, step in _REPAIRS:
        repaired = step(text)
        if repaired is not text:
            repairs.append(name)
            text = repaired
    return text, tuple(repairs)


def symbol_ratio(text: str) -> str | None:
    """Drop tables, code dumps, ASCII art: more than half of the characters are neither letters, digits nor space."""
    symbols = _WORDS.sub("", text)
    if len(symbols) * 2 <= len(text):
        return None
    # Vowel signs of Indic scripts and other marks belong to letters, though \w does not match them.
    marks = sum(unicodedata.category(c).startswith("M") for c in symbols)
    return "symbol_ratio" if (len(symbols) - marks) * 2 > len(text) else None


def repetition(text: str) -> str | None:
    """Drop texts with over 30 % of their characters in repeated lines, or whose start compresses over 12 times."""
    lines = Counter(line for line in text.split("\n") if line.strip())
    repeated = sum(len(line) * (count - 1) for line, count in lines.items())
    if repeated > 0.3 * len(text):
        return "repetition"
    head = text[:_PROBE].encode(errors="replace")
    return "repetition" if len(head) > 1000 and len(zlib.compress(head, 1)) * 12 < len(head) else None


def in_languages(text: str, wanted: tuple[str, ...]) -> bool:
    """Whether the start of the text is in one of these languages, as far as it tells (`pipelines.corpus.languages`).

    Raises UserError for codes that the model does not know.
    """
    identifier = _identifier()
    unknown = [code for code in wanted if languages.wanted((code,)).codes.isdisjoint(identifier.labels)]
    if unknown:
        raise UserError(
            f"data.clean.languages: unknown language {unknown[0]!r}{nearest(unknown[0], identifier.labels)}",
            why="languages are named by their ISO 639-1 codes, such as en, de, zh",
        )
    return languages.is_in(text, wanted, identifier)


def rule_named(name: str) -> Rule:
    """A rule of this module, or an importable function `package.module.function`."""
    return plugins.find_function("cleaning rule", name, _BUILT_IN)


# --- repairs: each returns the same object when there is nothing to do ------------------------------------------------


def _without_mojibake(text: str) -> str:
    # Looking for single characters runs at GB/s, the pattern at 100 MB/s.
    if text.isascii() or not any(c in text for c in "ÂÃâï") or not _MOJIBAKE.search(text):
        return text
    import ftfy

    fixed = ftfy.fix_encoding(text)
    return text if fixed == text else fixed


def _without_control(text: str) -> str:
    if "\r" in text:
        return _without_control(text.replace("\r\n", "\n").replace("\r", "\n"))
    data = text.encode(errors="surrogatepass")
    # Deleting bytes from UTF-8 runs at 1 GB/s, a regular expression over str at a fifth of it.
    if len(data.translate(None, _CONTROL_BYTES)) == len(data) and (text.isascii() or not _C1_BYTES.search(data)):
        return text
    return _CONTROL.sub("", text.replace("\x85", "\n"))  # NEL is a line end


def _without_trailing(text: str) -> str:
    if " \n" in text or "\t\n" in text or text.endswith((" ", "\t")):
        return "\n".join([line.rstrip(" \t") for line in text.split("\n")])
    return text


def _nfc(text: str) -> str:
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


_REPAIRS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("mojibake", _without_mojibake),  # before control characters: it contains some, and is recognised by them
    ("control", _without_control),
    ("trailing_space", _without_trailing),
    ("nfc", _nfc),
)
_BUILT_IN: dict[str, Rule] = {"symbol_ratio": symbol_ratio, "repetition": repetition}


@functools.lru_cache(maxsize=1)
def _identifier() -> Any:
    """The model of languages, which takes 0.8 s to load: once per process."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise UserError(
            "data.clean.languages needs a package that is not installed",
            why=str(error),
            try_="pip install -c constraints.txt -e '.[lang]'   # in the checkout",
        ) from None
    return LanguageIdentifier.from_model_file(MODEL_FILE)


@functools.lru_cache(maxsize=16)
def _rules(preset: str, names: tuple[str, ...]) -> tuple[Rule, ...]:
    strict = tuple(_BUILT_IN) if preset == "strict" else ()
    return tuple(rule_named(name) for name in dict.fromkeys((*strict, *names)))
