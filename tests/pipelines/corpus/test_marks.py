"""What shows that documents are not what they are read as: separators, markup, other readers' formats."""

from dataclasses import replace

import pytest
from helpers import small

from pipelines.corpus.clean import CleanConfig
from pipelines.corpus.marks import describe_marks, find_marks, is_sampled
from pipelines.corpus.sources import Source, list_inputs
from pipelines.readers import text

BOOK = "CHAPTER I\n\nIt rained. " * 300
PAGE = "<p>A paragraph</p>\n<div><a href='x'>link</a></div>\n" * 3


@pytest.mark.parametrize(
    ("document", "reader", "marks"),
    [
        ("A story.\n<|endoftext|>\nAnother.", "text", ["<|endoftext|>"]),
        ("One.</s>Two.</s>Three.", "jsonl", ["</s>"]),
        ("One <EOS> two <eos> three", "csv", ["<EOS>", "<eos>"]),
        ("A turn<|im_end|>", "parquet", ["<|im_end|>"]),
        (PAGE, "text", ["HTML"]),
        (PAGE, "jsonl", ["HTML"]),
        ("<p><s>old</s> new</p> " * 5, "text", ["HTML"]),
        ('{"text": "A line."}\n{"text": "More."}\n', "text", ["jsonl"]),
        ('{"text": "JSON in a field"}', "jsonl", []),
        ('<doc id="1" url="u" title="T">\nT\n</doc>\n', "text", ["wikiextractor"]),
        ('<doc title="T" url="u" revid="3" id="1">\nT\n</doc>\n', "text", ["wikiextractor"]),
        ('<?xml version="1.0"?>\n<mediawiki xml:lang="en">', "text", ["wikipedia"]),
        ("The Project\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\n", "text", ["gutenberg"]),
        (f"* A Project Gutenberg of Australia eBook *\n\n{BOOK}", "gutenberg", ["licence"]),
        (f"{BOOK}\n\nProject Gutenberg Canada ebook #949", "gutenberg", ["licence"]),
        (f"{BOOK}\n\nThis book is available from FadedPage.com", "text", ["licence"]),
        (f"{BOOK} Project Gutenberg Australia {BOOK}", "gutenberg", []),
        ("Project Gutenberg Canada is a library.", "jsonl", []),
        (BOOK, "gutenberg", []),
        ("Words, a < b and c > d, [1] and {x: 1}.", "text", []),
        ("In HTML, <b>bold</b> and </s> are tags; {} is JSON.", "text", ["</s>"]),
        ("", "text", []),
        ("x" * 40_000 + "<|endoftext|>", "text", []),
    ],
)
def test_marks_are_found(document, reader, marks):
    assert find_marks(document, reader) == marks


def test_a_sample_has_the_first_documents_and_some_of_all_others():
    assert all(is_sampled(number) for number in range(64))
    assert sum(is_sampled(number) for number in range(1600)) == 64 + 96


def test_a_source_is_told_once_with_its_share_and_what_helps():
    def unit(source: str, sampled: int, **marks: int):
        return replace(small.unit(source), sampled=sampled, marks=marks)

    units = [
        unit("stories", 60, **{"<|endoftext|>": 50, "</s>": 1}),
        unit("stories", 40, **{"<|endoftext|>": 48}),
        unit("lines", 10, jsonl=10),
        unit("pages", 200, HTML=2),
        unit("about HTML", 201, HTML=2),
        unit("turns", 4, **{"</s>": 3}),
        unit("books", 10, licence=4),
        unit("old", 0),
    ]
    readers = {"turns": "jsonl"}
    assert describe_marks(units, {**dict.fromkeys(["stories", "lines", "pages", "about HTML"], "text"), **readers}) == [
        "98% of 100 sampled documents of 'stories' hold <|endoftext|>: options: {separator: '<|endoftext|>'} makes a "
        "document of each text between these",
        "100% of 10 sampled documents of 'lines' look like the format of another reader: reader: jsonl reads them",
        "1% of 200 sampled documents of 'pages' hold HTML, whose tags would be learnt as text: extract the text first, "
        "for example by trafilatura",
        "75% of 4 sampled documents of 'turns' hold </s>: make a record of each text between these, for one document "
        "must not hold several",
        "40% of 10 sampled documents of 'books' hold the licence of their library, which would be learnt as text: the "
        "reader gutenberg removes that of gutenberg.org only, so remove it before, or drop these by a rule of your own "
        "(data.clean.rules)",
    ]


def test_units_count_the_marks_of_dropped_documents_too(tmp_path):
    """A line with nothing but a separator is too short to be kept."""
    (tmp_path / "f.txt").write_text("A story that is long enough to be kept.\n<|endoftext|>\n" * 500)
    files = list_inputs([Source("text", str(tmp_path / "f.txt"), options={"per": "line"})])
    unit = small.clean_unit(files, CleanConfig(), f"{tmp_path}/unit")
    assert (unit.kept, unit.dropped) == (500, {"too_short": 500})
    assert (unit.sampled, unit.marks) == (64 + 59, {"<|endoftext|>": 32})
    assert describe_marks([unit], {"f.txt": "text"})[0].startswith("26% of 123 sampled documents of 'f.txt' hold <|end")
    assert text.Options().separator is None
