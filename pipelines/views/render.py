"""Show examples as people read them: the text with its blanks, the order of prediction, both position rows.

The page is one self-contained HTML file: no script, nothing to fetch, readable in light and dark.
"""

import html as _html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from glm_model.tokenizer import Tokenizer
from infra.console import counted
from pipelines.feed.examples import FeedSettings, draw_epoch, lay_out
from pipelines.ragged import Blanks, RowBatch, slice_rows
from pipelines.store.format import Split
from pipelines.views.statistics import Histogram

if TYPE_CHECKING:
    from rich.text import Text

_COLOURS = 8


@dataclass(frozen=True)
class ExampleView:
    """One example as it is shown."""

    objective: str
    segment_id: str
    context: list[tuple[str, int | None]]
    """Parts of the text, each with the number of its blank, or None between blanks."""
    pieces: list[str]
    """The blanks, in the order of prediction."""
    tokens: list[str]
    position_ids: list[int]
    block_position_ids: list[int]
    context_end: int


def view_examples(
    split: Split,
    settings: FeedSettings,
    tokenizer: Tokenizer,
    *,
    count: int,
    epoch: int = 0,
    objectives: Sequence[str] | None = None,
) -> list[ExampleView]:
    """The first `count` segments of a split under their blanks of an epoch, as even over the objectives as can be."""
    rows = split.read_group(0)
    blanks = draw_epoch(rows, settings, epoch)
    names = settings.mixture.names
    wanted = [(index, name) for index, name in enumerate(names) if objectives is None or name in objectives]
    chosen: list[int] = []
    for place, (index, _) in enumerate(wanted):
        share = count // len(wanted) + (place < count % len(wanted))
        chosen += np.flatnonzero(blanks.objective == index)[:share].tolist()
    return view_segments(rows, blanks, chosen, settings, tokenizer)


def view_segments(
    rows: RowBatch, blanks: Blanks, chosen: Sequence[int], settings: FeedSettings, tokenizer: Tokenizer
) -> list[ExampleView]:
    """Some segments of rows of a store, by their numbers, under the blanks that were drawn for them."""
    apart = replace(rows, row_offsets=np.arange(len(rows) + 1))  # each segment a row
    return [_view(*slice_rows(apart, blanks, segment, segment + 1), settings, tokenizer) for segment in chosen]


def _view(one: RowBatch, blanks: Blanks, settings: FeedSettings, tokenizer: Tokenizer) -> ExampleView:
    """one: a row of one segment."""
    positions = int(settings.mixture.form.positions(one, blanks)[0])
    example = lay_out(one, blanks, replace(settings, width=positions))
    context: list[tuple[str, int | None]] = []
    at = 0
    for number in np.argsort(blanks.spans[:, 0]).tolist():
        start, end = blanks.spans[number].tolist()
        context.append((tokenizer.decode(one.tokens[at:start], inside=at > 0), None))
        context.append((tokenizer.decode(one.tokens[start:end], inside=True), number + 1))
        at = end
    context.append((tokenizer.decode(one.tokens[at:], inside=at > 0), None))
    return ExampleView(
        objective=settings.mixture.names[int(blanks.objective[0])],
        segment_id=f"{int(one.ids[0]):016x}",
        context=context,
        pieces=[tokenizer.decode(one.tokens[start:end], inside=True) for start, end in blanks.spans],
        tokens=[_surface(int(i), settings, tokenizer) for i in example.tokens[0]],
        position_ids=example.position_ids[0].tolist(),
        block_position_ids=example.block_position_ids[0].tolist(),
        context_end=int(example.context_end[0, 0]),
    )


def _surface(id_: int, settings: FeedSettings, tokenizer: Tokenizer) -> str:
    """A token's spelling; an ablation's own tokens follow those of the tokenizer."""
    if id_ < tokenizer.vocab_size:
        return tokenizer.surface(id_)
    return settings.mixture.form.extra_surface(id_ - tokenizer.vocab_size)


def html(views: Sequence[ExampleView], *, title: str, histograms: Sequence[Histogram] = ()) -> str:
    """A self-contained page of examples, and of histograms below them."""
    body = "\n".join(_card(index, example) for index, example in enumerate(views, start=1))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_html.escape(title)}</title><style>{_STYLE}</style></head>
<body><h1>{_html.escape(title)}</h1>
<p>Each text is shown with its blanks numbered in the order in which the model predicts them. It reads the context as a
whole, then writes every blank from left to right, seeing the blanks before it.</p>
{body}
{"".join(_chart(histogram) for histogram in histograms)}
</body></html>
"""


def terminal(view: ExampleView) -> "Text":
    """An example in colours: the context with its numbered blanks, then the blanks as they are predicted."""
    from rich.text import Text

    predicted = len(view.tokens) - view.context_end
    sizes = f"{counted(len(view.pieces), 'blank')}, {view.context_end} context + {predicted} predicted positions"
    text = Text(f"{view.objective}", style="bold")
    text.append(f"  segment {view.segment_id}, {sizes}\n", style="dim")
    for part, number in view.context:
        style = _TERMINAL_COLOURS[number % _COLOURS] if number else ""
        text.append(f"[{number}:{part or '∅'}]" if number else part, style=style)
        text.append(" ")
    text.append("\n")
    for number, piece in enumerate(view.pieces, start=1):
        text.append(f"  {number} ", style=_TERMINAL_COLOURS[number % _COLOURS])
        text.append(f"{piece or '∅'}\n")
    return text


def bars(histogram: Histogram, *, width: int = 40) -> "Text":
    """A histogram for a terminal: a bar per label; `|` stands where theory expects its end."""
    from rich.text import Text

    text = Text(f"{histogram.title}", style="bold")
    text.append(f"  ({histogram.count:,})" + ("  | theory\n" if histogram.theory is not None else "\n"), style="dim")
    most = max(histogram.observed.max(), 0 if histogram.theory is None else histogram.theory.max(), 1e-9)
    for i, label in enumerate(histogram.labels):
        bar = list("█" * round(width * histogram.observed[i] / most) + " " * (width + 1))
        if histogram.theory is not None:
            bar[min(round(width * histogram.theory[i] / most), width)] = "|"
        text.append(f"{label:>5} {''.join(bar[: width + 1])} {histogram.observed[i]:6.2%}\n")
    return text


def filled(parts: Sequence[str], *, around: tuple[str, str] = ("", "")) -> "Text":
    """Text and answers in turn, as `glm_model.Filled.parts` has them, the answers in bold and put between two marks."""
    from rich.text import Text

    text = Text()
    for place, part in enumerate(parts):
        if place % 2:
            text.append(f"{around[0]}{part or '∅'}{around[1]}", style="bold green")
        else:
            text.append(part)
    return text


def _card(index: int, view: ExampleView) -> str:
    text = "".join(
        f"<span>{_html.escape(part)} </span>" if number is None else _blank(part, number)
        for part, number in view.context
    )
    pieces = "".join(f"<li>{_html.escape(piece) or '∅'}</li>" for piece in view.pieces)
    predicted = len(view.tokens) - view.context_end
    sizes = f"{counted(len(view.pieces), 'blank')} · {view.context_end} context + {predicted} predicted positions"
    return f"""<section><h2>{index}. {_html.escape(view.objective)}</h2>
<p class="meta">segment {view.segment_id} · {sizes}</p>
<p class="text">{text}</p>
<details><summary>blanks in the order of prediction</summary><ol>{pieces}</ol></details>
<details><summary>tokens and positions</summary>{_positions(view)}</details></section>"""


def _chart(histogram: Histogram) -> str:
    most = max(histogram.observed.max(), 0 if histogram.theory is None else histogram.theory.max(), 1e-9)
    rows = []
    for i, label in enumerate(histogram.labels):
        expected = "" if histogram.theory is None else f'<i style="left:{100 * histogram.theory[i] / most:.1f}%"></i>'
        bar = f'<b style="width:{100 * histogram.observed[i] / most:.1f}%"></b>{expected}'
        value = f"{histogram.observed[i]:.2%}"
        rows.append(f'<tr><th>{_html.escape(label)}</th><td class="bar">{bar}</td><td>{value}</td></tr>')
    legend = "" if histogram.theory is None else "; the line is what theory expects"
    return f"""<section><h2>{_html.escape(histogram.title)}</h2><p class="meta">{histogram.count:,}{legend}</p>
<table class="chart">{"".join(rows)}</table></section>"""


def _blank(part: str, number: int) -> str:
    text = _html.escape(part) or "∅"
    return f'<mark class="c{number % _COLOURS}" title="blank {number}"><sup>{number}</sup>{text}</mark> '


def _positions(view: ExampleView) -> str:
    def cells(values: list, start: int, end: int) -> str:
        return "".join(f"<td>{_html.escape(str(v))}</td>" for v in values[start:end])

    tables = []
    for label, start, end in (("context", 0, view.context_end), ("predicted", view.context_end, len(view.tokens))):
        lines = (
            ("token", view.tokens),
            ("position", view.position_ids),
            ("block position", view.block_position_ids),
        )
        rows = "".join(f"<tr><th>{name}</th>{cells(values, start, end)}</tr>" for name, values in lines)
        tables.append(f'<div class="scroll"><table><caption>{label}</caption>{rows}</table></div>')
    return "".join(tables)


_TERMINAL_COLOURS = ("red", "blue", "green", "yellow", "magenta", "cyan", "bright_red", "bright_black")
_STYLE = """
:root{color-scheme:light dark;--line:#8884}
body{font:16px/1.55 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.05rem;margin:0}section{border-top:1px solid var(--line);padding:1rem 0}
.meta{color:#888;font-size:.85rem;margin:.1rem 0 .6rem}.text{white-space:pre-wrap;margin:.4rem 0}
mark{color:inherit;border-radius:.25rem;padding:.05rem .2rem}mark sup{font-size:.7em;opacity:.75;margin-right:.15rem}
.c0{background:#e5737355}.c1{background:#64b5f655}.c2{background:#81c78455}.c3{background:#ffd54f66}
.c4{background:#ba68c855}.c5{background:#4db6ac55}.c6{background:#ff8a6555}.c7{background:#90a4ae55}
details{font-size:.9rem;margin:.3rem 0}summary{cursor:pointer;color:#888}
.scroll{overflow-x:auto}table{border-collapse:collapse;font:12px/1.4 ui-monospace,monospace;margin:.4rem 0}
caption{text-align:left;color:#888}td,th{border:1px solid var(--line);padding:.1rem
.3rem;white-space:nowrap}th{text-align:left}
.chart{width:100%}.chart th,.chart td{border:0;width:4rem;text-align:right}
.chart .bar{position:relative;width:auto;text-align:left}
.bar b{display:block;height:.8rem;background:#64b5f6aa;border-radius:.1rem}
.bar i{position:absolute;top:0;bottom:0;border-left:2px solid #e57373}
"""
