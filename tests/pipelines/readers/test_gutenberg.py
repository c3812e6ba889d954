"""Every form in which Project Gutenberg attached its licence, and its real files."""

import io
import re
from pathlib import Path

import pytest

from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import Source, list_inputs
from pipelines.document import Document, Rejected
from pipelines.readers import gutenberg

RAW = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "corpora" / "gutenberg_raw"
START, END = "START OF THIS PROJECT GUTENBERG EBOOK", "END OF THIS PROJECT GUTENBERG EBOOK"
BOOK = "THE BOOK\n\nby Somebody\n\n\nCHAPTER I\n\nIt was produced by hand. *** He ended it.\n\n*END*\n\nTHE END"
BOOK = BOOK.replace("It was", "He sat at his window, and it rained. " * 20 + "\nIt was")


def read(data: bytes) -> Document | Rejected:
    (record,) = gutenberg.read(io.BytesIO(data), path="1.txt", options=None)
    return record


LICENCE = "*** START: FULL LICENSE ***\n\nTHE FULL PROJECT GUTENBERG LICENSE\n\n*** END: FULL LICENSE ***\n"
NOTES = "Produced by A. Person and the\nOnline Team\n\n\nNote: Project Gutenberg also has an HTML version\n\n\n"
FORMS = {
    "2020": f"The Project Gutenberg eBook of X\n\nTitle: X\n\nCredits: A. Person\n\n"
    f"*** START OF THE PROJECT GUTENBERG EBOOK X ***\n\n\n{{}}\n\n"
    f"*** END OF THE PROJECT GUTENBERG EBOOK X ***\n\n\n{LICENCE}",
    "2010": f"Title: X\n\n*** {START} X ***\n\n\n{NOTES}{{}}\n\n\n\n"
    f"End of the Project Gutenberg EBook of X, by\nSomebody\n\n*** {END} X ***\n{LICENCE}",
    "2003": f"***START OF THE PROJECT GUTENBERG EBOOK A LONG\nTITLE***\n\n\nE-text prepared by A. Person\n\n"
    f"{{}}\n\n***END OF THE PROJECT GUTENBERG EBOOK A LONG\nTITLE***\n\n{LICENCE}",
    "1994": "***The Project Gutenberg Etext of X***\n\n***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\n"
    "Why is this here?\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n\n"
    "This etext was prepared by A. Person\n\n\n{}\n\n\nEnd of The Project Gutenberg Etext of X\n",
    "small print at the foot": "***START OF THE PROJECT GUTENBERG EBOOK X***\n\n{}\n\n"
    "*** START**THE SMALL PRINT!**FOR PUBLIC DOMAIN EBOOKS**START***\nWhy?\n"
    "*END THE SMALL PRINT! FOR PUBLIC DOMAIN EBOOKS*Ver.02/11/02*END*\n",
}
FORMS["small print at the foot"] = FORMS["small print at the foot"].replace("*** START**", "***START**")


@pytest.mark.parametrize("form", FORMS)
def test_nothing_but_the_book_remains(form):
    assert read(FORMS[form].format(BOOK).encode()) == Document(BOOK, 0)
    assert read(FORMS[form].format(BOOK).replace("\n", "\r\n").encode()) == Document(BOOK, 0)


def test_a_text_without_marks_is_kept_whole():
    assert read(f"Produced by Nobody\n\n{BOOK}\n".encode()) == Document(f"Produced by Nobody\n\n{BOOK}\n", 0)


def test_joined_volumes_stay_together():
    inside = f"{BOOK}\n\nEnd of the Project Gutenberg EBook of volume 1\n\n{BOOK}"
    assert read(FORMS["2020"].format(inside).encode()) == Document(inside, 0)


def test_latin1_where_the_file_declares_it():
    head, french = (
        "Character set encoding: {}\n\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\n",
        "Été à Paris – 1900",
    )
    for name in ("ISO-8859-1", "iso-latin-1", "Windows-1252"):
        assert read((head.format(name) + french).encode("cp1252")) == Document(french, 0, {"repaired": "latin1"})
    assert read((head.format("ISO-8859-1") + french).encode()) == Document(french, 0)
    assert read(b"Character set encoding: ISO-8859-1\n\n\x81\xe9") == Document(
        "Character set encoding: ISO-8859-1\n\n\x81é", 0, {"repaired": "latin1"}
    )
    record = read((head.format("ISO-8859-15") + "é" * 20).encode("latin1"))
    assert isinstance(record, Rejected)
    assert record.reason == "not_utf8"


def test_real_files():
    if not RAW.exists():
        pytest.skip("shared/data/corpora is not there")
    files = list_inputs([Source("gutenberg", str(RAW))])
    first_and_last = {}
    for file in files:
        (document,) = read_documents(file)
        assert isinstance(document, Document)
        assert not re.search(r"gutenberg|e-?text (?:prepared|was)|\bebook|pgdp|\*\*\*", document.text, re.IGNORECASE)
        lines = document.text.split("\n")
        first_and_last[file.path] = (lines[0].strip(), lines[-1].strip())
    assert first_and_last == {
        "10028.txt.gz": (
            "SPALDING'S OFFICIAL ATHLETIC LIBRARY",
            "Simon, Pittsburgh      42  113   10  34   38   2   1  --  --   1 .301",
        ),
        "10076.txt.gz": ("LISTER'S GREAT ADVENTURE", 'mean to stay!"'),
        "1013.txt.gz": ("THE FIRST MEN IN THE MOON", "that has no end...."),
        "33956.txt.gz": ("TranscriberaEuro(TM)s Note", "53  in an evnelope changed to in an envelope"),
        "36261.txt.gz": ("+" + "-" * 66 + "+", "RICHARD CLAY AND SONS, LONDON AND BUNGAY."),
        "39397.txt.gz": ("ONE OF CLEOPATRA'S NIGHTS", "ADDENDA"),
    }
