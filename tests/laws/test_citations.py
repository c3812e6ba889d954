"""docs/laws.md names the files that hold a law, and each of them says so."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = re.findall(r"^\| (\d+) \| .* \| (.*) \|$", (ROOT / "docs" / "laws.md").read_text(), re.MULTILINE)
HELD = [(int(number), path) for number, files in ROWS for path in re.findall(r"`(tests/[^`]*)`", files)]


def cites(text: str, number: int) -> bool:
    """Whether a text says "law 5", "laws 4 and 5" or the like."""
    sentences = re.findall(r"\b[Ll]aws?\b([^.\n]{1,60})", text)
    return any(str(number) in re.findall(r"\d+", sentence) for sentence in sentences)


def test_the_page_has_every_law():
    assert [int(number) for number, _ in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(HELD) > 20


@pytest.mark.parametrize(("number", "path"), HELD)
def test_a_file_cites_the_law_that_it_holds(number, path):
    place = ROOT / path
    texts = [file.read_text() for file in ([place] if place.suffix else sorted(place.glob("test_*.py")))]
    assert any(cites(text, number) for text in texts), f"{path} does not say that it holds law {number}"


def test_the_reading_of_citations_is_right():
    text = "Laws 1 (no loss) and 2 hold. By law 4, law 15 and laws 6, 7 and 8."
    assert [number for number in range(20) if cites(text, number)] == [1, 2, 4, 6, 7, 8, 15]
