"""Languages by script and score: real articles of two Wikipedias, and sentences of languages that no one wanted."""

import gzip
import re

import pytest

from pipelines.corpus.clean import CleanConfig, clean, in_languages
from pipelines.corpus.languages import wanted

FOREIGN = {
    "Japanese": """
昨日は友だちと川まで歩きました。
この町には古い橋が三つあります。
朝ごはんにパンと卵を食べました。
電車が遅れたので学校に間に合わなかった。
窓の外で猫が静かに眠っている。
来年の春に新しい図書館が開きます。
彼女は毎朝六時に起きて畑に水をやる。
すみません、駅はどちらですか。
このりんごは隣の村から来ました。
雨が降りそうなので傘を持って行きなさい。
""",
    "German": """
Gestern sind wir bis zum Fluss gelaufen.
In dieser Stadt gibt es drei alte Brücken.
Zum Frühstück aßen sie Brot und zwei Eier.
Der Zug kam zu spät, und die Schule hatte schon begonnen.
Vor dem Fenster schläft leise eine Katze.
Im nächsten Frühjahr wird die neue Bücherei eröffnet.
Sie steht jeden Morgen um sechs auf und gießt den Garten.
Entschuldigung, wo geht es hier zum Bahnhof?
Diese Äpfel kommen aus dem Dorf nebenan.
Nimm einen Schirm mit, es sieht nach Regen aus.
""",
    "Dutch": """
Gisteren zijn we tot aan de rivier gelopen.
In deze stad staan drie oude bruggen.
Bij het ontbijt aten ze brood en twee eieren.
De trein was te laat en de school was al begonnen.
Voor het raam ligt zachtjes een kat te slapen.
Volgend voorjaar gaat de nieuwe bibliotheek open.
Zij staat elke ochtend om zes uur op en geeft de tuin water.
Pardon, hoe kom ik hier bij het station?
Deze appels komen uit het dorp hiernaast.
Neem een paraplu mee, het ziet naar regen uit.
""",
    "Latin": """
Heri cum amicis ad flumen ambulavimus.
In hoc oppido tres pontes antiqui sunt.
Mane panem et duo ova comederunt.
Puella epistulam longam ad matrem suam scripsit.
Ante fenestram feles tacite dormit.
Vere proximo nova bibliotheca aperietur.
Illa cotidie hora sexta surgit et hortum irrigat.
Milites per silvam densam magno cum periculo iter fecerunt.
Haec mala ex vico propinquo veniunt.
Agricola filio suo agrum et equum dedit.
""",
}
SHORT = {  # title -> languages, of those asked for, in which it may be
    "Silom Line": "en sr",
    "長江大橋": "zh ja",
    "しずまよしのり": "ja",
    "Windows 95": "en sr",
    "視窗95": "zh ja",
    "Река Волга": "ru sr",
    "2001": "en zh ja ru ar sr",
    "نهر النيل": "ar",
    "Novi Sad": "en sr",
    "Нови Сад": "ru sr",
}


def share_kept(texts: list[str], language: str) -> float:
    return sum(in_languages(text, (language,)) for text in texts) / len(texts)


@pytest.fixture(scope="module")
def articles(shared):
    """Language -> texts of Wikipedia as WikiExtractor wrote them, every title among them; most are titles alone."""
    found = {}
    for language, file in (("en", "enwiki_wikiextractor/AA/wiki_05.gz"), ("zh", "zhwiki_wikiextractor/AB/wiki_17.gz")):
        path = shared / "data" / "corpora" / file
        if not path.exists():
            pytest.skip(f"{file} is not in shared/data/corpora")
        pages = gzip.decompress(path.read_bytes()).decode()
        found[language] = [text.strip() for text in re.findall(r"<doc[^>]*>\n(.*?)</doc>", pages, re.DOTALL)]
    return found


@pytest.mark.parametrize(("own", "other"), [("en", "zh"), ("zh", "en")])
def test_real_articles_are_kept_under_their_language_and_dropped_under_another(articles, own, other):
    real = [text for text in articles[own] if len(text) >= 50][:500]
    assert len(real) > 150
    assert share_kept(real, own) >= 0.99
    assert share_kept(real, other) <= 0.01


def test_titles_are_told_by_their_script(articles):
    assert share_kept(articles["en"], "zh") <= 0.01
    assert share_kept([text for text in articles["en"] if len(text) < 50], "en") >= 0.99
    chinese = [text for text in articles["zh"] if re.search("[一-鿿]", text) and len(text) < 50]
    assert share_kept(chinese, "zh") >= 0.98  # names in Latin letters with a Chinese word are the rest
    assert share_kept(chinese, "en") <= 0.01


@pytest.mark.parametrize("asked", ["en", "zh"])
def test_sentences_of_other_languages_are_dropped(asked):
    sentences = {language: text.strip().split("\n") for language, text in FOREIGN.items()}
    assert share_kept([one for own in sentences.values() for one in own], asked) <= 0.05
    assert share_kept(["\n".join(own[at : at + 2]) for own in sentences.values() for at in range(9)], asked) == 0


@pytest.mark.parametrize("title", SHORT)
def test_a_short_text_may_be_in_every_language_of_its_script(title):
    asked = ["en", "zh", "ja", "ru", "ar", "sr"]
    assert {code for code in asked if in_languages(title, (code,))} == {*SHORT[title].split()}


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("no", "Vi gjekk i går saman heilt ned til elva, og der såg vi tre gamle bruer som ingen lenger brukar."),  # nn
        ("nb", "Vi gjekk i går saman heilt ned til elva, og der såg vi tre gamle bruer som ingen lenger brukar."),
        (
            "hr",
            "Jučer smo s prijateljima šetali do rijeke, gdje smo vidjeli tri stara mosta koje više nitko ne koristi.",
        ),
        (
            "bs",
            "Jučer smo s prijateljima šetali do rijeke, gdje smo vidjeli tri stara mosta koje više nitko ne koristi.",
        ),
        ("sr", "Јуче смо са пријатељима шетали до реке, где смо видели три стара моста која више нико не користи."),
        ("ms", "Kemarin kami berjalan kaki ke sungai dan melihat tiga jembatan tua yang sudah tidak dipakai lagi."),
        ("zh", "噚日我哋同朋友一齊行到河邊，喺嗰度見到三條冇人用嘅舊橋，仲食咗個麵包先返屋企。"),  # Cantonese
    ],
)
def test_kin_count_as_the_language(language, text):
    assert in_languages(text, (language,))
    assert not in_languages(text, ("en",))
    assert not in_languages(text, ("hu", "fi"))


def test_kin_of_another_script_do_not_count():
    cyrillic = "Јуче смо са пријатељима шетали до реке, где смо видели три стара моста која више нико не користи."
    assert not in_languages(cyrillic, ("hr",))


def test_codes_of_kin_are_those_of_every_language_that_is_wanted():
    assert wanted(("zh", "en")).codes == {"zh", "wuu", "yue", "en", "pcm"}
    assert wanted(("de",)).codes == {"de"}


def test_a_long_text_is_told_by_its_start():
    chinese = "昨天我们和朋友一起走到河边，看见三座没有人再用的旧桥。" * 100
    assert clean(chinese + "The end. " * 1000, CleanConfig(languages=["zh"])) != "language"
    assert clean("The end is near. " * 150 + chinese, CleanConfig(languages=["zh"])) == "language"
