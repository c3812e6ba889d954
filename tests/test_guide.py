"""docs/guide.md keeps its word: its reader and its objective work as they are printed."""

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import small

from glm_model.layout import check_spans, expand, restore
from infra.config import dataclass_from
from pipelines.blanks import draw
from pipelines.blanks.mixture import BlanksConfig, resolve
from pipelines.corpus.reading import read_documents
from pipelines.corpus.sources import Source, list_inputs
from pipelines.feed import examples

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guide.md"


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
    drawn = draw.draw(mixture, rows, small.golden_vocabulary(), seed=1, epoch=0)
    mine = np.flatnonzero(drawn.objective == 1)
    assert len(mine) > 10
    assert (np.diff(drawn.span_offsets)[mine] == 1).all()
    ragged = examples.ragged(rows, drawn, mixture, small.golden_vocabulary(), sop=990, length=512)
    check_spans(ragged)
    sizes = draw.positions(rows, drawn, mixture)
    laid_out = expand(ragged, np.arange(len(sizes) + 1), width=int(sizes.max()), marks=small.GOLDEN_MARKS)
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
