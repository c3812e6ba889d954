"""WikiSplit's files and metrics: golden values are those of the examples that Xu et al. publish with their script."""

import pytest
from helpers.answered import table

from infra.errors import DataError
from pipelines import tasks
from pipelines.metrics.scores import scores
from pipelines.metrics.written.simplification import sari
from pipelines.questions.config import TaskConfig
from pipelines.questions.splits import split_rows

SOURCE = "About 95 species are currently accepted ."
RIGHT = (
    "About 95 species are currently known .",
    "About 95 species are now accepted .",
    "95 species are now accepted .",
)
GOLDEN = {
    "About 95 you now get in .": 0.2682782411698074,
    "About 95 species are now agreed .": 0.5889995423074248,
    "About 95 species are currently agreed .": 0.5071608864657479,
}


def test_files_are_read_by_their_published_names(tmp_path):
    line = "A cat sat and it ran .\tA cat sat . <::::> It ran .\n"
    for name in ("train", "tune", "validation", "test"):
        (tmp_path / f"{name}.tsv").write_text(line + "A dog .\tA dog .\n")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "a.tsv").write_text(line)
    options = TaskConfig(name="wiki_split", data=str(tmp_path))
    splits, task = tasks.find_splits(options), tasks.define(options, lambda: [])
    assert {*splits} == {"train", "tune", "dev", "test"}
    good, bad = (one for _, one in task.items(split_rows(splits, "dev")))
    assert (good.fields["source"], good.candidates) == ("A cat sat and it ran .", ("A cat sat . It ran .",))
    assert good.source == good.fields["source"]
    assert str(bad).endswith("the target needs <::::> once, between two sentences, and has 1 parts")
    with pytest.raises(DataError, match="holds no splits"):
        tasks.find_splits(TaskConfig(name="wiki_split", data=str(tmp_path / "others")))


@pytest.mark.parametrize(("written", "expected"), GOLDEN.items())
def test_sari_is_that_of_the_authors_script(written, expected):
    words = [text.lower().split() for text in RIGHT]
    assert sari(SOURCE.lower().split(), written.lower().split(), words) == pytest.approx(expected, abs=1e-15)


def test_scores_are_means_over_items_and_of_sentences():
    rows = [{"candidates": list(RIGHT), "gold": 0, "source": SOURCE, "written": text} for text in GOLDEN]
    rows[0]["written"] += " Two ."
    found = {one.metric: one for one in scores(table(*rows[1:]), ("sari", "two_sentences"), classes=0)}
    assert found["sari"].value == pytest.approx(100 * sum([*GOLDEN.values()][1:]) / 2)
    assert found["two_sentences"].value == 0.0
    assert found["sari"].variant.startswith("Xu et al. (2016)")
    (two,) = scores(table(rows[0]), ("two_sentences",), classes=0)
    assert two.value == 100.0


def test_copying_deletes_and_adds_nothing():
    words = SOURCE.split()
    assert sari(words, words, [words]) == pytest.approx(1 / 3)
