"""The marks that end sentences, and where they say that a text may be cut, in all scripts that have some.

One list for cutting texts into segments and for the sentence objective. It begins with Unicode's property
Sentence_Terminal (18.0) and states where it departs from it. Thai and Lao have no mark: they part sentences by spaces,
which part phrases too, so that only line breaks end a sentence there.
"""

import re

_SENTENCE_TERMINAL = """
0021 002E 003F 0589 061D-061F 06D4 0700-0702 07F9 0837 0839 083D-083E 0964-0965 104A-104B 1362 1367-1368 166E
1735-1736 17D4-17D5 1803 1809 1944-1945 1AA8-1AAB 1B4E-1B4F 1B5A-1B5B 1B5E-1B5F 1B7D-1B7F 1C3B-1C3C 1C7E-1C7F
2024 203C-203D 2047-2049 2CF9-2CFB 2E2E 2E3C 2E53-2E54 2E60-2E61 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877
A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE12 FE15-FE16 FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57
10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239
1123B-1123C 112A9 113D4-113D5 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946
11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 16D6E-16D6F
16E98 1BC9F 1DA88
"""
# The ellipsis; the Greek question mark; Hebrew's end of a verse; Tibetan's shads, which end phrases too, but nothing
# else ends its sentences; Sinhala's kunddaliya; Georgian's old paragraph mark; Coptic's full stop. The Armenian
# question and exclamation marks stand inside words: they are not marks here.
_ALSO = "2026 037E 05C3 0F0D-0F12 0DF4 10FB 2CFE"
_COMMAS = "104A A9C8"  # Burmese and Javanese: terminal by the property, commas to their readers


def _characters(ranges: str) -> frozenset[str]:
    """The characters of code points and ranges, in hex."""
    parts = [part.partition("-") for part in ranges.split()]
    return frozenset(chr(code) for low, _, high in parts for code in range(int(low, 16), int(high or low, 16) + 1))


FULL_STOPS = frozenset(".․﹒．")
"""They end a sentence, but stand in numbers and behind abbreviations too."""
END_MARKS = (_characters(_SENTENCE_TERMINAL) | _characters(_ALSO)) - _characters(_COMMAS) - FULL_STOPS
"""They end a sentence wherever they stand."""
ETHIOPIC_WORDSPACE = "፡"
"""Twice it is a full stop, as many write it."""
CLOSERS = "\"')]}”’»›」』）】〉》〕〗〙〛］｝｣༽"
"""Closing quotation marks and brackets, which belong to the sentence before them."""
OPENERS = "（「『【〈《〔〖〘〚［｛｢“‘"
"""Opening ones of scripts that have no space before them."""


def is_greek(letter: str) -> bool:
    """Whether `;` is a question mark behind it, which is what U+037E becomes in every normal form of Unicode."""
    return "Ͱ" <= letter <= "Ͽ" or "ἀ" <= letter <= "῾"


def _one_of(characters: str | frozenset[str]) -> str:
    return "[" + "".join(map(re.escape, sorted(characters))) + "]"


_SURE = _one_of(END_MARKS - frozenset("!?"))
_CLOSER, _CLOSER_ALONE = _one_of(CLOSERS), _one_of(frozenset(CLOSERS) - frozenset("\"'»›"))
_NO_ABBREVIATION = r"(?<!\b[A-Z]\.)(?<!\b[DMS][rt]\.)(?<!\bMrs\.)"
_BEFORE_A_SENTENCE = r"(?=\s)(?!\s+[a-z])"
SENTENCE_END = re.compile(
    # Behind a sentence end and its closing marks, before the white space: byte-level tokenizers join a word with the
    # space before it.
    # Not behind titles and initials, nor before a word in lower case.
    rf"[.․﹒!?…]{_NO_ABBREVIATION}[\"'”’»)\]]*{_BEFORE_A_SENTENCE}"
    # Behind marks that leave no doubt, white space or not. A quotation mark that looks alike on both sides closes only
    # before white space. ASCII and the ideographs hold no such mark: leaving them out at once saves two thirds of the
    # time.
    rf"|(?![\x00-\x7f\u3040-\ua4cf])(?:(?:{_SURE}(?: ?།)*)+(?:{_CLOSER}+(?=\s)|{_CLOSER_ALONE}*)"
    # A full stop in Japanese, mostly behind hiragana; in Chinese it stands inside names.
    rf"|．(?<=[ぁ-ゖ]．){_CLOSER}*"
    rf"|{ETHIOPIC_WORDSPACE}{{2}})"
    rf"|;(?<=[Ͱ-Ͽἀ-῾];){_CLOSER}*(?=\s)"
)
"""The end of a match is a place to cut a text."""
ASCII_SENTENCE_END = re.compile(rf"[.!?]{_NO_ABBREVIATION}[\"')\]]*{_BEFORE_A_SENTENCE}")
"""The same in ASCII, in a fraction of the time."""

SENTENCE_MARK = re.compile(r"[.․﹒!?…][\"'”’»)\]]*(?=\s)")
"""What ends sentences in text that is all in lower case, and shortens words in other text."""


def sentences(text: str) -> list[str]:
    """The sentences of a text, by a rule that does not depend on case or on spaces before marks: a text and what a
    model in lower case makes of it are cut alike. One ends at a line break, and behind . ! ? or an ellipsis, with its
    closing marks, where white space follows. Abbreviations end one too.
    """
    ends = [match.end() for match in SENTENCE_MARK.finditer(text)]
    parts = [text[first:last] for first, last in zip([0, *ends], [*ends, len(text)], strict=True)]
    lines = (line for part in parts for line in part.splitlines())
    return [line.strip() for line in lines if line.strip()]
