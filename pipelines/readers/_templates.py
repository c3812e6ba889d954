"""The text that usual templates of Wikipedia show: {{lang|fr|chat}}, {{convert|5|km}}, {{circa|1990}}.

What a template shows is made by a page of its own; to do the same for all of them takes MediaWiki. Those here stand
inside sentences, where leaving them out makes a hole, and show their arguments in a way that is simple to follow.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MOST_CHARACTERS = 5000
"""The longest template that is rendered; longer ones are tables and boxes."""

Arguments = list[str]
Named = dict[str, str]
Rule = Callable[[Arguments, Named], str]

_MONTHS = ["January", "February", "March", "April", "May", "June", "July"]
_MONTHS += ["August", "September", "October", "November", "December"]
_NUMBER = re.compile(r"[-+−]?\.?\d[\d.,/⁄+]*(?:[eE][-+]?\d+)?")
_NAMED = re.compile(r"\s*([^\W_][\w -]{0,30}?)\s*=(.*)", re.DOTALL)
_BAR = re.compile(r"\[\[|\]\]|\|")
_CENTURY = re.compile(r"[IVXLCivxlc]+(?:er|e) siècle(?: av\. J\.-C\.)?")


def rule_of(name: str) -> Rule | None:
    """What renders the template of this name; None for one that is not known."""
    key = " ".join(name.replace("_", " ").split())
    rule = _RULES.get(key.lower())
    if rule is None and key[:5].lower() == "lang-":
        return _argument(0)
    if rule is None and _CENTURY.fullmatch(key):
        return lambda given, named: key
    return rule


def arguments(content: str) -> tuple[Arguments, Named]:
    """What a template is given: content is what stands behind its name and a bar. Bars in links separate nothing."""
    given: Arguments = []
    named: Named = {}
    for part in _parts(content):
        match = _NAMED.fullmatch(part)
        if match and not match[1].isdigit():
            named[match[1].lower()] = match[2].strip()
        else:
            given.append((match[2] if match else part).strip())
    return given, named


def _parts(content: str) -> list[str]:
    if "[[" not in content:
        return content.split("|")
    parts, begin, depth = [], 0, 0
    for mark in _BAR.finditer(content):
        if mark[0] == "|" and depth == 0:
            parts.append(content[begin : mark.start()])
            begin = mark.end()
        elif mark[0] != "|":
            depth = max(0, depth + (1 if mark[0] == "[[" else -1))
    return [*parts, content[begin:]]


# --- rules ------------------------------------------------------------------------------------------------------------


def _argument(*numbers: int, names: tuple[str, ...] = (), around: tuple[str, str] = ("", "")) -> Rule:
    """Shows the first argument that is not empty, of those with these names and then of those with these numbers."""

    def rule(given: Arguments, named: Named) -> str:
        some = [*map(named.get, names), *(given[number] for number in numbers if number < len(given))]
        text = next(filter(None, some), "")
        return f"{around[0]}{text}{around[1]}" if text else ""

    return rule


def _joined(separator: str, *, before: str = "", after: str = "", most: int = 100) -> Rule:
    """Shows its arguments, if there are some."""
    return lambda given, named: before + separator.join(filter(None, given[:most])) + after if given else ""


def _constant(text: str) -> Rule:
    return lambda given, named: text


def _behind_code(given: Arguments, named: Named) -> str:
    """The text of {{lang|fr|chat}}: the last argument, where there are two or more."""
    return named.get("text") or (given[-1] if len(given) > 1 else "")


def _year_month_day(given: Arguments, named: Named) -> str:
    """{{birth date|1990|1|2}}; others give the date as it is shown, in one argument or three."""
    numbers = [int(one) for one in given[:3] if one.isdigit()]
    if len(numbers) < 2 or not 1 <= numbers[1] <= 12 or len(given[0]) < 3:
        return " ".join(given[:3]) if any(one.isalpha() for one in given[1:3]) else (given or [""])[0]
    month = _MONTHS[numbers[1] - 1]
    if len(numbers) == 2:
        return f"{month} {numbers[0]}"
    day_first = named.get("df", "").lower() in ("y", "yes", "1", "true")
    return f"{numbers[2]} {month} {numbers[0]}" if day_first else f"{month} {numbers[2]}, {numbers[0]}"


def _as_of(given: Arguments, named: Named) -> str:
    begin = "as of " if named.get("lc") else "As of "
    return named.get("alt") or (begin + _year_month_day(given, {"df": "y"}) if given else "")


def _convert(given: Arguments, named: Named) -> str:
    """{{convert|5|to|7|km|mi}}: the quantity that was measured, without its conversions."""
    text = ""
    for number, one in enumerate(given):
        if _NUMBER.fullmatch(one):
            text += one
        elif one in _RANGES and number + 1 < len(given) and _NUMBER.fullmatch(given[number + 1]):
            text += _RANGES[one]
        elif text:
            text += f" {_UNITS.get(one, one)}"
            following = given[number + 1 : number + 3]
            if len(following) < 2 or one not in _COMPOUND or not _NUMBER.fullmatch(following[0]):
                return text
            text += " "  # 5 ft 10 in
        else:
            return ""
    return text


def _value(given: Arguments, named: Named) -> str:
    unit = named.get("u") or named.get("ul") or named.get("up") or ""
    return "±".join(given[:2]) + (f" {unit}" if unit else "")


def _fraction(given: Arguments, named: Named) -> str:
    *whole, above, below = ["1", *given] if len(given) == 1 else given or ["", ""]
    return " ".join([*whole, f"{above}/{below}"]) if above else ""


def _period(before: str) -> Rule:
    return lambda given, named: f"{before} {'–'.join(filter(None, given[:2]))}" if given else ""


def _nihongo(given: Arguments, named: Named) -> str:
    english, *others = [*given, "", ""][:3]
    inside = ", ".join(filter(None, others))
    return f"{english} ({inside})" if english and inside else english or inside


def _chinese(given: Arguments, named: Named) -> str:
    return "; ".join(named[key] for key in ("c", "s", "t", "p", "w", "j") if named.get(key)) or (given or [""])[0]


def _life(given: Arguments, named: Named) -> str:
    """{{bd|1958年|8月29日|2009年|6月25日}} of Chinese Wikipedia."""
    born, died = "".join(given[:2]), "".join(given[2:4])
    return f"（{born}－{died}）" if born or died else ""


_UNITS = {
    **{"km2": "km²", "m2": "m²", "sqft": "sq ft", "ft2": "sq ft", "sqmi": "sq mi", "mi2": "sq mi", "m3": "m³"},
    **{"km3": "km³", "cuft": "cu ft", "C": "°C", "F": "°F", "acre": "acres", "mile": "miles", "kph": "km/h"},
}
_COMPOUND = {"ft", "st", "lb", "mi", "yd", "foot", "feet"}
_RANGES = {"-": "–", "–": "–", "to": " to ", "to(-)": " to ", "and": " and ", "or": " or ", "x": " × ", "by": " by "}
_RANGES |= {"+/-": " ± ", "±": " ± ", "*": " × "}

_SIGNS = {"!": "|", "=": "=", "'": "'", "'s": "'s", "·": " ·", "•": " •", "nbsp": " ", "okina": "ʻ", "pi": "π"}
_SIGNS |= {"ndash": "–", "–": "–", "en dash": "–", "mdash": "—", "—": "—", "em dash": "—", "snd": " – ", "spnd": " – "}
_SIGNS |= {"mdashb": "—", "snds": " – ", "spaces": " ", "thinsp": " ", "dot": " ·", "' \"": "' \"", '-"': '"'}
_SIGNS |= {"spaced ndash": " – ", "spaced en dash": " – ", "e": "e", "er": "er", "av. j.-c.": "av. J.-C."}
_SHIPS = ["HMS", "USS", "SS", "MV", "RMS", "HMAS", "HMCS", "SMS", "USCGC"]
_MONEY = ["US$", "A$", "C$", "NZ$", "HK$", "£", "€", "¥", "₹"]

_TABLE: list[tuple[Rule, str]] = [  # rules, and names of templates separated by commas
    (_argument(0), "nowrap, nobr, nobreak, no break, small, smaller, larger, big, strong, em, bold, italic, sup, sub"),
    (_argument(0), "smallcaps, small caps, sc, mvar, math, var, code, tt, kbd, samp, mono, abbr, abréviation, tooltip"),
    (
        _argument(0),
        "unicode, iast, script, hebrew, polytonic, not a typo, typo, sic, linktext, visible anchor, vanchor",
    ),
    (_argument(0), "as written, nts, nombre, formatnum, number, flag, flagcountry, chem2, esd, nobold, noitalic"),
    (
        _argument(0),
        "normal, proper name, nihongo2, keypress, heures, unbold, center, script/arabic, script/hebrew, iso",
    ),
    (_argument(0, around=("⟨", "⟩")), "angbr, angle bracket"),
    (_argument(0, names=("text",), around=("\n", "\n")), "quote, blockquote, cquote, quotation, quote box"),
    (_argument(0, names=("text",), around=("\n", "\n")), "zitat, cita, citazione"),
    (_argument(0, around=("« ", " »")), "citation bloc, guil"),
    (_behind_code, "lang, langx, langue, foreign language, rtl-lang, transl, translit, transliteration"),
    (_behind_code, "wikt-lang, wt, color, colour, font color, colored, farbe, couleur, resize"),
    (_argument(0, names=("lt",)), "ill, illm, ill2, interlanguage link, interlanguage link multi"),
    (_argument(0, names=("texte", "fr")), "lien"),
    (_argument(0, names=("label",)), "仮リンク"),
    (_argument(2, 0), "link-en, link-ja, link-fr, link-de, le, internal link helper/en, internal link helper/ja"),
    (_argument(3, 2), "tsl, translink"),
    (_argument(1, 0), "w, нп, нп3, нп5, не переведено, не переведено 5"),
    (_convert, "convert, cvt, unité, unidad, unit"),
    (_value, "val"),
    (_fraction, "frac, sfrac, fraction, fract"),
    (_year_month_day, "birth date, birth-date, birth date and age, birth-date and age, bda, dob, death date"),
    (_year_month_day, "death-date, death date and age, death-date and age, dda, start date, start date and age"),
    (_year_month_day, "end date, film date, release date, date, date-, dts, date de naissance, date de décès"),
    (_as_of, "as of"),
    (_joined(" – c. ", before="c. ", most=2), "circa, c., ca., ca, around"),
    (_period("r."), "reign, r."),
    (_period("fl."), "floruit, fl."),
    (_life, "bd"),
    (_joined(""), "chem, gaps, num"),
    (_joined("+"), "key press, key"),
    (_joined(", "), "hlist, flatlist, ubl, unbulleted list, plainlist"),
    (_nihongo, "nihongo, nihongo krt"),
    (_chinese, "zh, lang-zh"),
    (_joined("", most=2, after=" siècle"), "s-, sp-"),
    (_joined(" ", most=2), "ship"),
    (_joined("-class ", most=2), "sclass, sclass-"),
    *((_joined(" ", before=f"{name} ", most=1), name.lower()) for name in _SHIPS),
    *((_joined("", before=name, most=1), name.lower()) for name in _MONEY),
    *((_constant(text), name) for name, text in _SIGNS.items()),
]
_RULES = {name.strip(): rule for rule, names in _TABLE for name in names.split(",")}
