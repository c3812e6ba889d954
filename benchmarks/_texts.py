"""Text that a benchmark makes itself: the same on every machine, in English, German and Chinese, with duplicates."""

import csv
import json
import random
from pathlib import Path

_ENGLISH = """
the a of and to in was for on with river town bridge market winter summer stone letter captain garden morning evening
window teacher village harbour mountain paper lamp road horse bread silver carried opened found wrote walked remembered
painted followed answered between under behind before after slowly never often quiet small old bright narrow first
"""
_GERMAN = """
der die das und in von mit auf für über Fluss Stadt Brücke Straße Größe Mädchen König Gärten Winter Morgen schrieb fand
öffnete ging später früher während schöne alte kleine
"""
_CHINESE = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种"
_SYLLABLES = "ka lo mi ren tor vas bel dun fi gra hol ist jun"


def documents(count: int, seed: int) -> list[str]:
    """Texts of 3 to 14 sentences. One of nine is nearly an earlier one, one of thirteen is an earlier one."""
    rng = random.Random(seed)
    made: list[str] = []
    for number in range(count):
        if number % 13 == 12:
            made.append(rng.choice(made))
        elif number % 9 == 8:
            words = rng.choice(made).split(" ")
            words[rng.randrange(len(words))] = _name(rng)
            made.append(" ".join(words))
        else:
            sentence = rng.choices((_english, _german, _chinese), (8, 1, 1))[0]
            made.append(" ".join(sentence(rng) for _ in range(rng.randint(3, 14))))
    return made


def write(folder: Path, count: int) -> None:
    """So many documents each as `text/` (a file each), `texts.jsonl` and `texts.csv`; of the three no two alike."""
    (folder / "text").mkdir(parents=True)
    for number, text in enumerate(documents(count, seed=1)):
        (folder / "text" / f"{number:04}.txt").write_text(text, encoding="utf-8")
    lines = [json.dumps({"text": text}) + "\n" for text in documents(count, seed=2)]
    (folder / "texts.jsonl").write_text("".join(lines), encoding="utf-8")
    with open(folder / "texts.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("number", "text"))
        rows.writerows(enumerate(documents(count, seed=3)))


def _english(rng: random.Random) -> str:
    words = [_word(_ENGLISH, rng) for _ in range(rng.randint(6, 16))]
    words.insert(rng.randrange(len(words)), _name(rng))
    return " ".join(words).capitalize() + rng.choice((".", ".", ".", "?", ', "' + _word(_ENGLISH, rng) + '".'))


def _german(rng: random.Random) -> str:
    return " ".join(_word(_GERMAN, rng) for _ in range(rng.randint(6, 14))).capitalize() + "."


def _chinese(rng: random.Random) -> str:
    return "".join(rng.choice(_CHINESE) for _ in range(rng.randint(12, 30))) + "。"


def _name(rng: random.Random) -> str:
    return "".join(_word(_SYLLABLES, rng) for _ in range(rng.randint(2, 4))).capitalize()


def _word(words: str, rng: random.Random) -> str:
    return rng.choice(words.split())
