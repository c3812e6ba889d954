"""LAMBADA and perplexity: golden items, and what is odd in published files."""

import pytest
from helpers.rendered import defined, items, published, questions, shown

from infra.errors import DataError
from pipelines import tasks
from pipelines.questions.config import TaskConfig
from pipelines.questions.question import Windows
from pipelines.questions.splits import split_rows
from pipelines.questions.task import Item
from pipelines.tasks.perplexity import detokenised


def test_lambada(tiny_tokenizer):
    texts, answers, gold = shown("lambada", {"text": "The cat sat. On a  mat"}, tiny_tokenizer)
    assert texts == ["The cat sat. On a  [gMASK]", "The cat sat. On a  [MASK]"]
    assert (answers, gold) == (("mat",), 0)
    first, second = questions("lambada", {"text": "the cat sat"}, tiny_tokenizer)
    special = tiny_tokenizer.special
    assert (first.prompt.tokens[-1], second.prompt.tokens[-2:].tolist()) == (special.gmask, [special.mask, special.eos])
    assert (first.kind, first.count_end) == ("write", False)


LAST = [
    ('He said, "Go', "He said, ", '"Go'),
    ("some kind of\n\nPower", "some kind of\n\n", "Power"),
    ("I thought...Tess ", "I ", "thought...Tess"),
    ("  Yes, go!", "Yes, ", "go!"),
]


@pytest.mark.parametrize(("text", "before", "word"), LAST)
def test_the_last_word_is_what_stands_behind_the_last_white_space(text, before, word):
    (item,), _ = items(defined("lambada"), [{"text": text}])
    assert (item.fields["before"], item.candidates) == (before, (word,))


def test_a_text_of_one_word_says_why_it_is_not_asked():
    needs = "needs two words: one to be asked for, and one before it"
    assert items(defined("lambada"), [{"text": " word "}, {"text": ""}]) == (
        [],
        [f"a.jsonl:1: the text ' word ' {needs}", f"a.jsonl:2: the text '' {needs}"],
    )


def test_the_published_half_of_lambada(shared):
    found = published(shared, "lambada", "lm_eval/lambada_test.first_half.jsonl", "test")
    assert len(found) == 2577
    assert sum(item.fields["before"].endswith("\n") for item in found) == 2
    assert not any(item.fields["before"][-1].strip() for item in found)


WIKITEXT = """ 
 = Dogs ( band ) = 
 
 The dog 's " best " song , in 1 @,@ 000 @-@ odd words ( of 2 @.@ 5 ) : it ran . 
 
 = = Early life = = 
 
 = 2 and k = 
 It ran ; then sat ! 
 
 = Cats = 
 
 A cat . 
"""


def test_articles_of_wikitext_are_items_as_they_were_written(tmp_path):
    file = tmp_path / "wiki.valid.tokens"
    file.write_text(WIKITEXT)
    rows = split_rows(tasks.find_splits(TaskConfig(name="perplexity", data=str(tmp_path))), "dev")
    found = [item for _, item in defined("perplexity").items(rows)]
    first = '= Dogs (band) =\n\nThe dog\'s "best" song, in 1,000-odd words (of 2.5): it ran.\n\n'
    first += "== Early life ==\n\n= 2 and k =\nIt ran; then sat!"
    assert found == [
        Item("2", {"before": ""}, "0", candidates=(first,), words=48),
        Item("11", {"before": ""}, "0", candidates=("= Cats =\n\nA cat.",), words=6),
    ]
    file.write_text(f"A text.\n{WIKITEXT}")
    with pytest.raises(DataError, match="has text before its first title"):
        list(split_rows(tasks.find_splits(TaskConfig(name="perplexity", data=str(tmp_path))), "dev"))


def test_marks_of_tokenisation_are_undone():
    assert detokenised(" = = = Third = = = \n the cats ' mat [ 1 ] { a } , 40 ° N ") == (
        "=== Third ===\nthe cats' mat [1] {a}, 40°N"
    )


def test_a_table_has_a_text_in_each_row():
    found, bad = items(defined("perplexity"), [{"text": "A cat ran.", "id": "x"}, {"text": "A dog."}, {"text": " "}])
    assert [(item.id, item.candidates, item.words) for item in found] == [
        ("x", ("A cat ran.",), None),
        ("2", ("A dog.",), None),
    ]
    assert bad == ["a.jsonl:3: the text is empty"]


def test_a_text_is_read_in_windows_whatever_its_length(tiny_tokenizer):
    text = "the cat sat on a mat " * 200
    both, forward = questions("perplexity", {"text": text}, tiny_tokenizer)
    assert (both.text, both.windows) == ("[gMASK]", Windows(256, bidirectional=True))
    assert (forward.text, forward.windows) == ("[gMASK]", Windows(256, bidirectional=False))
    assert both.candidates[0].tolist() == tiny_tokenizer.encode(text).tolist()
    assert both.prompt.tokens.tolist() == [tiny_tokenizer.special.cls, tiny_tokenizer.special.gmask]
    assert (both.kind, both.count_end, both.gold) == ("read", False, 0)


WORDS = [
    ("wikitext-103", "test", 241211),
    ("wikitext-103", "dev", 213886),
    ("wikitext-2", "test", 241211),
    ("wikitext-2-raw", "dev", 213886),
]


@pytest.mark.parametrize(("folder", "split", "words"), WORDS)
def test_published_files_of_wikitext_have_sixty_articles_and_all_their_words(shared, folder, split, words):
    found = published(shared, "perplexity", f"lm_eval/{folder}", split)
    assert (len(found), sum(item.words or 0 for item in found)) == (60, words)
    assert not any(mark in item.candidates[0] for item in found for mark in (" @-@ ", " , ", " \n"))
