"""The page of `compare.py`: one self-contained HTML file with a chart per metric; no script, nothing to fetch."""

import html as _html
import io
import math
from collections.abc import Mapping, Sequence

Curve = Mapping[int, float]
_COLOURS = ("#1f77b4", "#d95f02")
_STYLE = """
:root{color-scheme:light dark;--line:#8884}
body{font:16px/1.55 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.05rem;margin:1.5rem 0 .4rem}
table{border-collapse:collapse;font:13px/1.4 ui-monospace,monospace}
td,th{border:1px solid var(--line);padding:.15rem .5rem;text-align:left;overflow-wrap:anywhere}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(22rem,1fr));gap:1rem}
figure{margin:0;background:#fff;border-radius:.4rem;border:1px solid var(--line)}
svg{width:100%;height:auto;display:block}
.one{color:#1f77b4}.two{color:#d95f02}
"""


def page(
    names: tuple[str, str],
    data: str,
    changed: Sequence[tuple[str, str, str]],
    curves: Mapping[str, tuple[Curve, Curve]],
) -> str:
    """names: of the two runs; data: what is to be said of their batches; changed: (setting, in one, in two); curves:
    metric -> {step: value} of one and of two.
    """
    one, two = (_html.escape(name) for name in names)
    rows = "".join("<tr>" + "".join(f"<td>{_html.escape(cell)}</td>" for cell in row) + "</tr>" for row in changed)
    settings = f"<table><tr><th>setting</th><th>{one}</th><th>{two}</th></tr>{rows}</table>" if rows else "<p>none</p>"
    charts = "".join(f"<figure>{_chart(metric, runs)}</figure>" for metric, runs in curves.items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{one} and {two}</title><style>{_STYLE}</style></head>
<body><h1><span class="one">{one}</span> and <span class="two">{two}</span></h1>
<p>Data: {_html.escape(data)}.</p>
<h2>Settings that differ</h2>{settings}
<h2>Curves over optimizer steps</h2><div class="grid">{charts}</div>
</body></html>
"""


def _chart(metric: str, runs: Sequence[Curve]) -> str:
    """A line per run, as the text of an SVG."""
    from matplotlib.figure import Figure  # half a second to load

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    for colour, curve in zip(_COLOURS, runs, strict=True):
        points = [(step, value) for step, value in sorted(curve.items()) if math.isfinite(value)]
        axes.plot([p[0] for p in points], [p[1] for p in points], color=colour, linewidth=1.4, alpha=0.85)
    axes.set_title(metric, fontsize=10)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)
    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Date": None})
    text = sink.getvalue()
    return text[text.index("<svg") :]
