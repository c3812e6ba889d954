"""Sentence ends on tokens: abbreviations, numbers, quotation marks, other scripts, for three kinds of tokenizer."""

import itertools

import numpy as np
import pytest

from glm_model.tokenizer import Tokenizer
from pipelines.token_classes import (
    ABBREVIATION,
    CLOSER,
    GLUED,
    HARD_END,
    LETTER,
    NUMBER,
    ORDINAL,
    SOFT_END,
    TokenClasses,
    classify,
    sentence_ends,
)

REAL = {
    "bert": "bert-base-uncased-vocab.txt",
    "bert_chinese": "bert-base-chinese-vocab.txt",
    "gpt2": "gpt2-vocab.json",
    "roberta": "roberta-vocab.json",
}
WORDPIECE = ["bert", "bert_chinese"]
BYTE_LEVEL = ["gpt2", "roberta"]


@pytest.fixture(scope="module")
def real(shared):
    """name -> (tokenizer, classes), loaded on first use."""
    loaded = {}

    def load(name: str):
        if name not in loaded:
            path = shared / "data" / "vocab" / REAL[name]
            if not path.exists():
                pytest.skip(f"{path.name} is not in shared/data/vocab")
            tokenizer = Tokenizer.load(str(path))
            loaded[name] = tokenizer, classify(tokenizer.surfaces())
        return loaded[name]

    return load


def spoken(tokenizer: Tokenizer, classes: np.ndarray, text: str) -> list[str]:
    """The sentences of a text as the tokenizer gives them back; a tail without an end carries a `|`."""
    ids = tokenizer.encode(text)
    stops = [*(np.flatnonzero(sentence_ends(ids, classes)) + 1).tolist()]
    tail = [] if stops and stops[-1] == len(ids) else [len(ids)]
    starts = [0, *stops, *tail]
    parts = [tokenizer.decode(ids[a:b]) for a, b in itertools.pairwise(starts)]
    return [*parts[: len(stops)], *(f"{part}|" for part in parts[len(stops) :])]


# text -> sentences, as cased text; lower case and spacing are the tokenizer's own affair.
ENDS = [
    ("The cat sat. The dog ran!", ["The cat sat.", "The dog ran!"]),
    ("Pi is 3.5 or so. Yes.", ["Pi is 3.5 or so.", "Yes."]),
    ("Use e.g. this one. Done.", ["Use e.g. this one.", "Done."]),
    ("The U.S. army left. It won.", ["The U.S. army left.", "It won."]),
    ("Das ist z. B. gut. Ja.", ["Das ist z. B. gut.", "Ja."]),
    ("Am 3. Oktober war es. Gut.", ["Am 3. Oktober war es.", "Gut."]),
    ("Mr. Smith came. Dr. J. R. Jones too!", ["Mr. Smith came.", "Dr. J. R. Jones too!"]),
    ("It ended in 1990. Then it rained.", ["It ended in 1990.", "Then it rained."]),
    ("It ended in 2.", ["It ended in 2.|"]),  # an ordinal as far as one can tell: the tail is a sentence anyway
    ("Who? Me! And you", ["Who?", "Me!", "And you|"]),
    ("Wait... What?! No!", ["Wait...", "What?!", "No!"]),
    ('He said "Go." Then he left.', ['He said "Go."', "Then he left."]),
    ('He said "Go!" Then he left.', ['He said "Go!"', "Then he left."]),
    ("(It rained.) We stayed.", ["(It rained.)", "We stayed."]),
    ('(He said "Go.") Then he left.', ['(He said "Go.")', "Then he left."]),
    ("We met (in town). We ran.", ["We met (in town).", "We ran."]),
    ("no end at all", ["no end at all|"]),
]


def compact(sentences: list[str]) -> list[str]:
    return ["".join(sentence.lower().split()) for sentence in sentences]


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(("text", "sentences"), ENDS, ids=[text for text, _ in ENDS])
def test_sentences_of_real_vocabularies(real, name, text, sentences):
    assert compact(spoken(*real(name), text)) == compact(sentences)


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_an_opening_quotation_mark_belongs_to_the_next_sentence_where_tokens_carry_spaces(real, name):
    text = 'He left. "Go," she said. "No!" Then\nhe "went."\nHome'
    expected = ["He left.", '"Go," she said.', '"No!"', "Then", 'he "went."', "Home|"]
    assert compact(spoken(*real(name), text)) == compact(expected)


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_web_addresses_end_no_sentence_where_tokens_carry_spaces(real, name):
    text = "See www.example.com now. Or mail me at a.b@example.org today. End."
    expected = ["See www.example.com now.", "Or mail me at a.b@example.org today.", "End."]
    assert compact(spoken(*real(name), text)) == compact(expected)


def test_newlines_end_sentences_in_byte_level_vocabularies(real):
    for name in BYTE_LEVEL:
        assert spoken(*real(name), "Line one\nLine two.\n\nLine three") == [
            "Line one\n",
            "Line two.\n\n",
            "Line three|",
        ]


def test_chinese_sentences(real):
    text = "你好。再见！好吗？他说：“好。”然后走了。"
    assert compact(spoken(*real("bert_chinese"), text)) == ["你好。", "再见！", "好吗？", "他说：“好。”", "然后走了。"]


def test_bits_of_a_wordpiece_vocabulary():
    pieces = [
        "##s",
        "[CLS]",
        "the",
        ".",
        "...",
        "?",
        "。",
        "”",
        ")",
        "5",
        "1990",
        "##9",
        "b",
        "##b",
        "mr",
        "##mr",
        "##.",
        "é",
        "",
    ]
    assert classify(pieces).tolist() == [
        GLUED,
        0,
        0,
        SOFT_END,
        SOFT_END,
        HARD_END,
        HARD_END,
        CLOSER,
        CLOSER,
        NUMBER | ORDINAL,
        NUMBER,
        NUMBER | GLUED,
        LETTER,
        GLUED,
        ABBREVIATION,
        GLUED,
        SOFT_END,
        0,  # accented: no initial, so that the rule stays simple
        0,
    ]


def test_bits_of_a_vocabulary_whose_tokens_carry_spaces():
    # "##" alone is a piece of GPT-2, and does not make it a WordPiece vocabulary.
    pieces = [
        "##",
        "####",
        " the",
        "the",
        ".",
        '."',
        ".)",
        '".',
        "?”",
        "\n",
        " \n\n",
        " ",
        " 5",
        "90",
        " B",
        " Mr",
        "。”",
    ]
    assert classify(pieces).tolist() == [
        0,
        0,
        0,
        GLUED,
        SOFT_END,
        SOFT_END,
        SOFT_END,
        SOFT_END,
        HARD_END,
        HARD_END,
        HARD_END,
        0,
        NUMBER | ORDINAL,
        NUMBER | ORDINAL | GLUED,
        LETTER,
        ABBREVIATION,
        HARD_END,
    ]


def test_ends_of_the_tiny_vocabulary(tiny_tokenizer):
    token_classes = TokenClasses.of(tiny_tokenizer)
    assert (token_classes.cls, token_classes.eos) == (2, 0)
    assert token_classes.masks == {"mask": 4, "smask": 39, "gmask": 38}
    assert len(token_classes.classes) == tiny_tokenizer.vocab_size

    def ends(text: str) -> list[str]:
        return compact(spoken(tiny_tokenizer, token_classes.classes, text))

    assert ends("The cat sat. Mr. Smith said go.") == ["thecatsat.", "mr.smithsaidgo."]
    assert ends("3.5 z. B. 3. Oktober. The dogs ran") == ["3.5z.b.3.oktober.", "thedogsran|"]
    assert ends("Smith said “go.” Then home!") == ["smithsaid[unk]go.”", "thenhome!"]
    assert ends("你好。你好") == ["你好。", "你好|"]


def test_the_end_of_the_array_is_no_end_of_a_sentence_by_itself():
    classes = classify(["##s", "a", "."])
    assert sentence_ends(np.empty(0, np.uint16), classes).tolist() == []
    assert sentence_ends(np.array([1, 1]), classes).tolist() == [False, False]
    assert sentence_ends(np.array([2]), classes).tolist() == [True]


def test_bits_agree_with_real_vocabularies(real):
    tokenizer, classes = real("gpt2")
    by_piece = dict(zip(tokenizer.surfaces(), classes.tolist(), strict=True))
    assert {p: by_piece[p] for p in (" the", "ing", ".", " 3", '."', "\n", " Dr")} == {
        " the": 0,
        "ing": GLUED,
        ".": SOFT_END,
        " 3": NUMBER | ORDINAL,
        '."': SOFT_END,
        "\n": HARD_END,
        " Dr": ABBREVIATION,
    }
