"""The pages keep their word: the guide's reader and objective work as printed, and what pages name is there."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import small

from glm_model.layout import check_spans, expand, restore
from infra.config import dataclass_from
from pipelines.blanks.draw import draw_blanks
from pipelines.blanks.form import blanked_batch
from pipelines.blanks.mixture import BlanksConfig, resolve
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import Source, list_inputs
from pipelines.feed.examples import mask_ids

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "guide.md"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
OURS = "pipelines|glm_model|workflows|infra"


@pytest.fixture
def printed(tmp_path, monkeypatch):
    """printed(start, name): the guide's Python block that starts so, as an importable module of that name."""

    def make(start: str, name: str):
        (code,) = [b for b in re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.M | re.S) if start in b[:80]]
        package = tmp_path / "guide_package"
        package.mkdir(exist_ok=True)
        (package / "__init__.py").write_text("")
        (package / f"{name}.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))
        for module in ("guide_package", f"guide_package.{name}"):
            monkeypatch.delitem(sys.modules, module, raising=False)
        importlib.invalidate_caches()
        return code

    return make


def test_the_objective_is_short_and_keeps_the_laws(printed):
    code = printed("One blank of one word's length", "one_token")
    assert len(code.splitlines()) < 60
    mixture = resolve(BlanksConfig(mixture={"token": 0.5, "guide_package.one_token": 0.5}))
    rows = small.numbers([1, 2, 30, 200] * 20, [True, False] * 40)
    drawn = draw_blanks(mixture, rows, small.golden_classes(), seed=1, epoch=0)
    mine = np.flatnonzero(drawn.objective == 1)
    assert len(mine) > 10
    assert (np.diff(drawn.span_offsets)[mine] == 1).all()
    batch = blanked_batch(rows, drawn, mask_ids(mixture, small.golden_classes()))
    check_spans(batch)
    sizes = mixture.form.positions(rows, drawn)
    laid_out = expand(batch, np.arange(len(sizes) + 1), width=int(sizes.max()), marks=small.GOLDEN_MARKS)
    for i in mine:
        alone = type(laid_out)(**{name: array[i, : sizes[i]] for name, array in laid_out.arrays().items()})
        assert restore(alone).tolist() == rows.tokens[rows.offsets[i] : rows.offsets[i + 1]].tolist()


def test_the_reader_reads_poems(printed, tmp_path):
    printed("Poems: one document", "poems")
    folder = tmp_path / "verse"
    folder.mkdir()
    (folder / "a.poems").write_text("Roses are red.\n---\nViolets are blue.")
    (folder / "b.txt").write_text("no poem")
    source = dataclass_from(
        Source, {"reader": "guide_package.poems", "url": str(folder), "options": {"star": "---"}}, where="here"
    )
    (file,) = list_inputs([source])
    assert [(d.text, d.offset) for d in read_documents(file)] == [("Roses are red.", 0), ("Violets are blue.", 19)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_modules_that_a_page_names_exist(page):
    text = page.read_text()
    if page.name == "CHANGELOG.md":
        text = re.sub(r"^ *\| [^|]* \|", "", text, flags=re.M)  # where something was before it moved
    files = re.findall(rf"(?<![\w/.])(?:{OURS}|tests|benchmarks|docs)/[\w./-]*\w(?![\w<*])", text)
    names = re.findall(rf"(?<![\w/.])(?:{OURS})(?:\.\w+)+(?!/)", text)  # of modules, or of what is in one
    assert [name for name in files if not (ROOT / name).exists()] == []
    assert [name for name in names if not (is_module(name) or is_module(name.rpartition(".")[0]))] == []


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page):
    text = page.read_text()
    for place, heading in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text):
        target = page.parent / place if place else page
        assert target.exists(), place
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            assert heading in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings]


def test_the_laws_that_code_and_tests_cite_have_a_row():
    laws = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "laws.md").read_text(), re.M)
    assert laws == [str(number) for number in range(1, 23)]
    cited = set()
    for folder in (*OURS.split("|"), "tests", "docs"):
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix in (".py", ".md"):
                for numbers in re.findall(r"\b[Ll]aws? (\d+(?:(?:, | and )\d+)*)", path.read_text()):
                    cited |= set(re.findall(r"\d+", numbers))
    assert {"10", "11"} <= cited <= set(laws)


def test_each_law_is_held_by_files_or_says_what_it_comes_with():
    for row in re.findall(r"^\| \d+ \| .* \| (.*) \|$", (ROOT / "docs" / "laws.md").read_text(), re.M):
        assert row.startswith(("`tests/", "comes with ")), row
