"""What people are shown: whole examples of the tiny store, a page that stands alone, a filled text."""

import re
from html.parser import HTMLParser

import numpy as np
from helpers import small

from glm_model.layout import Marks
from glm_model.tokenizer import Tokenizer
from pipelines.blanks.mixture import BlanksConfig, resolve
from pipelines.feed.examples import FeedSettings
from pipelines.ragged import Blanks, RowBatch
from pipelines.token_classes import TokenClasses
from pipelines.views import render
from pipelines.views.render import ExampleView


def view_by_hand(tokenizer: Tokenizer, text: str, spans: list[list[int]], **ablation) -> ExampleView:
    """One segment under blanks given by hand."""
    special = tokenizer.special
    tokens = np.array([special.cls, *tokenizer.encode(text), special.eos])
    rows = RowBatch(tokens, np.array([0, len(tokens)]), np.array([255], np.uint64), np.array([1]), np.array([0, 1]))
    blanks = Blanks(np.zeros(1, np.uint8), np.array(spans), np.array([0, len(spans)]))
    marks = Marks(special.sop, special.eop, special.pad)
    mixture = resolve(BlanksConfig(mixture="glm", **ablation))
    settings = FeedSettings("train", mixture, TokenClasses.of(tokenizer), marks, 0, 100, 512, None)
    (view,) = render.view_segments(rows, blanks, [0], settings, tokenizer)
    return view


def test_an_example_is_shown_whole(tiny_tokenizer):
    assert view_by_hand(tiny_tokenizer, "the cat sat on a mat.", [[5, 7], [2, 3]]) == ExampleView(
        objective="token",
        segment_id="00000000000000ff",
        context=[("the", None), ("cat", 2), ("sat on", None), ("a mat", 1), (".", None)],
        pieces=["a mat", "cat"],
        tokens=[
            "[CLS]", "the", "[MASK]", "sat", "on", "[MASK]", ".", "[PAD]",
            "<|startofpiece|>", "a", "mat", "<|startofpiece|>", "cat",
        ],
        position_ids=[0, 1, 2, 3, 4, 5, 6, 7, 5, 5, 5, 2, 2],
        block_position_ids=[0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 1, 2],
        context_end=8,
    )  # fmt: skip


def test_the_tokens_of_ablations_are_spelled_out(tiny_tokenizer):
    """The first blank has the plain mask and `[sop]`; ids behind the tokenizer's own are the ablation's."""
    sentinel = view_by_hand(tiny_tokenizer, "the cat sat on a mat.", [[5, 7], [2, 3]], mask_tokens="sentinel")
    assert sentinel.tokens == [
        "[CLS]", "the", "[MASK 1]", "sat", "on", "[MASK]", ".", "[PAD]",
        "<|startofpiece|>", "a", "mat", "<|startofpiece 1|>", "cat",
    ]  # fmt: skip
    noisy = view_by_hand(tiny_tokenizer, "the cat sat on a mat.", [[5, 7], [2, 3]], noise=0.99)
    assert noisy.tokens[8:] == ["<|startofpiece|>", "[NOISE]", "[NOISE]", "<|startofpiece|>", "[NOISE]"]


def test_examples_come_from_the_store_and_from_every_objective(tiny_store, tiny_tokenizer):
    settings = small.settings_of(tiny_store, tiny_tokenizer, seed=3)
    views = render.view_examples(tiny_store.train, settings, tiny_tokenizer, count=6)
    assert [view.objective for view in views] == [
        "token",
        "token",
        "sentence",
        "sentence",
        "document",
    ]  # the group holds one
    rows = tiny_store.train.read_group(0)
    by_id = {
        f"{int(i):016x}": tiny_tokenizer.decode(rows.tokens[a:b])
        for i, a, b in zip(rows.ids, rows.offsets[:-1], rows.offsets[1:], strict=True)
    }
    for example in views:
        # Put together again the parts are the text (WordPiece forgets where spaces were).
        text = "".join(part for part, _ in example.context)
        assert re.sub(r"\s", "", text) == re.sub(r"\s", "", by_id[example.segment_id])
        numbers = [number for _, number in example.context if number is not None]
        assert sorted(numbers) == list(range(1, len(example.pieces) + 1))
        assert {number: part for part, number in example.context if number} == dict(enumerate(example.pieces, start=1))
        assert len(example.tokens) == len(example.position_ids) == len(example.block_position_ids)
    assert render.view_examples(tiny_store.train, settings, tiny_tokenizer, count=6) == views
    assert len(render.view_examples(tiny_store.train, settings, tiny_tokenizer, count=2)) == 2


class Page(HTMLParser):
    """Collects what the laws below speak of, and checks that tags are closed in order."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.marks: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "mark":
            self.marks.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "mark" in self.open and "sup" not in self.open:
            self.marks[-1] += data


def parsed(page: str) -> Page:
    reader = Page()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def test_a_page_stands_alone(tiny_store, tiny_tokenizer):
    settings = small.settings_of(tiny_store, tiny_tokenizer)
    views = render.view_examples(tiny_store.train, settings, tiny_tokenizer, count=6)
    page = render.html(views, title="What a run is asked")
    reader = parsed(page)
    assert reader.tags.count("section") == 6
    assert reader.tags.count("mark") == sum(len(view.pieces) for view in views)
    assert not {"script", "link", "img"} & set(reader.tags)
    assert not {"src", "href", "onclick"} & reader.attributes
    assert "url(" not in page
    assert "@import" not in page
    assert "<title>What a run is asked</title>" in page
    assert "color-scheme:light dark" in page


def test_text_cannot_break_the_page():
    evil = "<script>alert('x')</script> & </section>"
    view = ExampleView(evil, "0", [(evil, None), (evil, 1), ("", 2)], [evil, ""], [evil], [0], [0], 1)
    page = render.html([view], title=evil)
    reader = parsed(page)
    assert "script" not in reader.tags
    assert reader.tags.count("section") == 1
    assert reader.marks == [evil, "∅"]


def test_a_filled_text():
    text = render.filled(("Ray is a ", "framework", " for ", "", "."), around=("<", ">"))
    assert text.plain == "Ray is a <framework> for <∅>."
    assert [(text.plain[s.start : s.end], s.style) for s in text.spans] == [
        ("<framework>", "bold green"),
        ("<∅>", "bold green"),
    ]


def test_no_examples_no_sections():
    assert parsed(render.html([], title="t")).tags.count("section") == 0
