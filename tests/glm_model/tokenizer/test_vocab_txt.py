"""How a vocab.txt is read: as tokenizer_config.json says, else as its pieces tell, and as the caller says above all."""

import json
from pathlib import Path

import pytest

from glm_model.tokenizer import Tokenizer
from glm_model.tokenizer.vocab_txt import is_cased, keeps_accents

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SMALL = "abcdefghijklmnopqrstuvwxyz"
GERMAN = [*SPECIAL, "Die", "Stadt", "die", "groß", "ist", *SMALL, *SMALL.upper(), *"äöüÄÖÜß."]
UMLAUTS = [*SPECIAL, "die", "stadt", "groß", "städte", "größe", "ist", *SMALL, *"äöüß."]


def folder(tmp_path: Path, pieces: list[str], settings: dict | None = None) -> str:
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(tmp_path)


def surfaces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.surface(int(id_)) for id_ in tokenizer.encode(text)]


@pytest.mark.parametrize(
    ("pieces", "settings", "lowercase", "found"),
    [
        (GERMAN, {"do_lower_case": False, "tokenizer_class": "BertTokenizer"}, None, ["Die", "Stadt"]),
        (GERMAN, None, None, ["Die", "Stadt"]),
        (GERMAN, {"model_max_length": 512}, None, ["Die", "Stadt"]),
        (GERMAN, {"do_lower_case": True}, None, ["die", "[UNK]"]),
        (GERMAN, None, True, ["die", "[UNK]"]),
        (GERMAN, {"do_lower_case": True}, False, ["Die", "Stadt"]),
        (UMLAUTS, None, None, ["die", "stadt"]),
        (UMLAUTS, {"do_lower_case": False}, None, ["[UNK]", "[UNK]"]),
    ],
)
def test_case_is_that_of_the_caller_else_of_the_settings_else_of_the_pieces(
    tmp_path, pieces, settings, lowercase, found
):
    url = folder(tmp_path, pieces, settings)
    for place in (url, f"{url}/vocab.txt"):
        assert surfaces(Tokenizer.load(place, lowercase=lowercase), "Die Stadt") == found


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (None, ["die", "städte"]),
        ({"do_lower_case": True, "strip_accents": False}, ["die", "städte"]),
        ({"do_lower_case": True}, ["die", "[UNK]"]),  # "stadte": as their authors' tokenizer reads it
        ({"strip_accents": None}, ["die", "[UNK]"]),
    ],
)
def test_accents_stay_where_the_settings_say_so_or_the_pieces_have_them(tmp_path, settings, found):
    assert surfaces(Tokenizer.load(folder(tmp_path, UMLAUTS, settings)), "Die Städte") == found


def test_chinese_characters_are_cut_apart_unless_the_settings_say_otherwise(tmp_path):
    pieces = [*SPECIAL, "中", "文", "中文"]
    assert surfaces(Tokenizer.load(folder(tmp_path, pieces)), "中文") == ["中", "文"]
    settings = {"tokenize_chinese_chars": False}
    assert surfaces(Tokenizer.load(folder(tmp_path, pieces, settings)), "中文") == ["中文"]


@pytest.mark.parametrize(
    ("pieces", "cased"),
    [
        (["[PAD]", "<S>", "der", "##er"], False),
        (["[PAD]", "Der", "##er"], True),
        (["дом", "##ом", "й"], False),
        (["Дом", "дом"], True),
        (["中", "文"], False),
        ([*SMALL, "DNA", "ⅷ", "Ⅷ", "Ⓐ"], False),  # terms that a user added; numerals and circles are no letters
        ([*SMALL, *SMALL.upper(), *"αβγδεζηθικλμνξοπρστυφχψωабвгдежзийклмнопрстуфхцчшщъыьэюя"], True),
    ],
)
def test_a_vocabulary_is_cased_if_it_has_the_upper_case_of_its_letters(pieces, cased):
    assert is_cased(pieces) is cased


@pytest.mark.parametrize(
    ("pieces", "accented"),
    [
        (["strasse", "stadte"], False),
        (["städte"], True),
        (["мой"], True),
        (["が"], True),
        (["한"], True),
        ([*map(str, range(2000)), "café"], False),  # a term that a user added
    ],
)
def test_a_vocabulary_keeps_accents_if_pieces_have_them(pieces, accented):
    assert keeps_accents(pieces) is accented


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"word_tokenizer_type": "mecab"}, "says word_tokenizer_type='mecab'"),
        ({"do_basic_tokenize": False}, "says do_basic_tokenize=false"),
        ({"do_lower_case": "no"}, "do_lower_case='no': expected true, false or null"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(tmp_path, settings, said):
    with pytest.raises(ValueError, match=said):
        Tokenizer.load(folder(tmp_path, GERMAN, settings))


def test_lowercase_is_refused_for_a_file_that_says_it_itself(tmp_path):
    Tokenizer.load(folder(tmp_path, GERMAN)).save(str(tmp_path / "saved"))
    with pytest.raises(ValueError, match=r"lowercase=True is for a vocab.txt, .*tokenizer.json does"):
        Tokenizer.load(str(tmp_path / "saved"), lowercase=True)


@pytest.mark.parametrize("name", ["bert-base-uncased-vocab.txt", "bert-base-chinese-vocab.txt"])
def test_the_uncased_models_of_google_are_found_to_be_uncased(name):
    """The Chinese one has five upper-case letters among its 21,128 pieces."""
    file = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "vocab" / name
    if not file.exists():
        pytest.skip("shared/data/vocab is not there")
    assert Tokenizer.load(str(file)).digest == Tokenizer.load(str(file), lowercase=True).digest
    normalizer = json.loads(Tokenizer.load(str(file)).to_json())["normalizer"]
    assert (normalizer["lowercase"], normalizer["strip_accents"]) == (True, None)
