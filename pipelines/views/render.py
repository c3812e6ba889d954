"""Show examples as people read them: the text with its blanks, the order in which they are predicted, both position
rows.

The page is one self-contained HTML file: no script, nothing to fetch, readable in light and dark.
"""

import html as _html
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from glm_model.layout import Example, Marks
from glm_model.tokenizer import Tokenizer
from pipelines.blanks import draw
from pipelines.blanks.mixture import BlanksConfig, Mixture, resolve
from pipelines.feed.examples import lay_out
from pipelines.ragged import Blanks, RowBatch, slice_rows
from pipelines.store.format import Split, TokenStore
from pipelines.token_classes import TokenClasses
from pipelines.views.statistics import Histogram

if TYPE_CHECKING:
    from rich.text import Text

_COLOURS = 8


@dataclass(frozen=True)
class Shown:
    """One example to show: its objective, pieces of the context (text, blank number or None), the blanks in order,
    rows.
    """

    objective: str
    segment_id: str
    context: list[tuple[str, int | None]]
    pieces: list[str]
    tokens: list[str]
    position_ids: list[int]
    block_position_ids: list[int]
    context_end: int


def examples(
    opened: TokenStore,
    split: Split,
    tokenizer: Tokenizer,
    config: BlanksConfig,
    *,
    count: int,
    epoch: int = 0,
    objectives: Sequence[str] | None = None,
) -> list[Shown]:
    """The first `count` segments of a split under their blanks of an epoch, as even over the objectives as can be."""
    mixture, token_classes = resolve(config), TokenClasses.of(tokenizer)
    rows = split.read_group(0)
    width = opened.manifest["settings"]["row_width"]
    drawn, _ = draw.draw_rows(mixture, rows, token_classes, seed=config.seed, epoch=epoch, width=width)
    wanted = [(index, name) for index, name in enumerate(mixture.names) if objectives is None or name in objectives]
    chosen: list[int] = []
    for place, (index, _) in enumerate(wanted):
        share = count // len(wanted) + (place < count % len(wanted))
        chosen += np.flatnonzero(drawn.objective == index)[:share].tolist()
    return segments(rows, drawn, chosen, opened, tokenizer, mixture)


def segments(
    rows: RowBatch, drawn: Blanks, chosen: Sequence[int], opened: TokenStore, tokenizer: Tokenizer, mixture: Mixture
) -> list[Shown]:
    """Some segments of rows of a store, by their numbers, under the blanks that were drawn for them."""
    token_classes, special = TokenClasses.of(tokenizer), tokenizer.special
    marks, length = Marks(special.sop, special.eop, special.pad), opened.manifest["settings"]["sequence_length"]
    apart = replace(rows, row_offsets=np.arange(len(rows) + 1))  # each segment a row
    shown: list[Shown] = []
    for segment in chosen:
        one, its_blanks = slice_rows(apart, drawn, int(segment), int(segment) + 1)
        size = int(draw.positions(one, its_blanks, mixture)[0])
        example = lay_out(one, its_blanks, mixture, token_classes, width=size, marks=marks, length=length)
        name = mixture.names[int(its_blanks.objective[0])]
        shown.append(_shown(name, one, its_blanks, example, tokenizer))
    return shown


def html(shown: list[Shown], *, title: str, histograms: Sequence[Histogram] = ()) -> str:
    """A self-contained page of examples, and of histograms below them."""
    body = "\n".join(_card(index, example) for index, example in enumerate(shown, start=1))
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


def terminal(shown: Shown) -> "Text":
    """An example in colours: the context with its numbered blanks, then the blanks as they are predicted."""
    from rich.text import Text

    predicted = len(shown.tokens) - shown.context_end
    sizes = f"{len(shown.pieces)} blanks, {shown.context_end} context + {predicted} predicted positions"
    text = Text(f"{shown.objective}", style="bold")
    text.append(f"  segment {shown.segment_id}, {sizes}\n", style="dim")
    for part, number in shown.context:
        style = _TERMINAL_COLOURS[number % _COLOURS] if number else ""
        text.append(f"[{number}:{part or '∅'}]" if number else part, style=style)
        text.append(" ")
    text.append("\n")
    for number, piece in enumerate(shown.pieces, start=1):
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
    """Text and answers in turn (`spliced` in glm_model), the answers highlighted for a terminal and put between
    two marks.
    """
    from rich.text import Text

    shown = Text()
    for place, part in enumerate(parts):
        if place % 2:
            shown.append(f"{around[0]}{part or '∅'}{around[1]}", style="bold green")
        else:
            shown.append(part)
    return shown


def _shown(name: str, one: RowBatch, its_blanks: Blanks, example: Example, tokenizer: Tokenizer) -> Shown:
    order = np.argsort(its_blanks.spans[:, 0])
    context: list[tuple[str, int | None]] = []
    at = 0
    for number in order:
        start, end = (int(x) for x in its_blanks.spans[number])
        context.append((tokenizer.decode(one.tokens[at:start]), None))
        context.append((tokenizer.decode(one.tokens[start:end]), int(number) + 1))
        at = end
    context.append((tokenizer.decode(one.tokens[at:]), None))
    return Shown(
        objective=name,
        segment_id=f"{int(one.ids[0]):016x}",
        context=context,
        pieces=[tokenizer.decode(one.tokens[a:b]) for a, b in its_blanks.spans],
        tokens=[tokenizer.surface(int(i)) for i in example.tokens[0]],
        position_ids=example.position_ids[0].tolist(),
        block_position_ids=example.block_position_ids[0].tolist(),
        context_end=int(example.context_end[0, 0]),
    )


def _card(index: int, shown: Shown) -> str:
    text = "".join(
        f"<span>{_html.escape(part)} </span>" if number is None else _blank(part, number)
        for part, number in shown.context
    )
    pieces = "".join(f"<li>{_html.escape(piece) or '∅'}</li>" for piece in shown.pieces)
    predicted = len(shown.tokens) - shown.context_end
    sizes = f"{len(shown.pieces)} blanks · {shown.context_end} context + {predicted} predicted positions"
    return f"""<section><h2>{index}. {_html.escape(shown.objective)}</h2>
<p class="meta">segment {shown.segment_id} · {sizes}</p>
<p class="text">{text}</p>
<details><summary>blanks in the order of prediction</summary><ol>{pieces}</ol></details>
<details><summary>tokens and positions</summary>{_positions(shown)}</details></section>"""


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


def _positions(shown: Shown) -> str:
    def cells(values: list, start: int, end: int) -> str:
        return "".join(f"<td>{_html.escape(str(v))}</td>" for v in values[start:end])

    tables = []
    for label, start, end in (("context", 0, shown.context_end), ("predicted", shown.context_end, len(shown.tokens))):
        lines = (
            ("token", shown.tokens),
            ("position", shown.position_ids),
            ("block position", shown.block_position_ids),
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
