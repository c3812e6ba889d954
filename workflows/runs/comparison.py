"""How two runs differ: their settings, the data that they saw, their curves; and the page that shows it.

The page is one self-contained HTML file with a chart per metric: no script, nothing to fetch.
"""

import html as _html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra import config, storage
from workflows.runs.history import fingerprints, read_log
from workflows.runs.record import read_record
from workflows.runs.run import find_run
from workflows.settings.identity import flat_settings

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


HEADLINES = ("train/loss", "val/loss", "val/bits_per_byte", "perf/tokens_per_second")
"""What the metrics begin with that a run is judged by first."""


@dataclass(frozen=True)
class RunFigures:
    """What a run's folder says of it."""

    url: str
    name: str
    settings: dict[str, str]
    """By dotted key."""
    store_digest: str
    """Begins with 16 hexadecimal digits of it; empty before the run has begun."""
    curves: dict[str, dict[int, float]]
    """Metric -> {step: value}."""
    fingerprints: dict[int, int]
    """Step -> fingerprint of its batch."""


def read_run(run: str) -> RunFigures:
    """The figures of a run: its folder, URL, name or MLflow id. Raises DataError when there is none."""
    url = find_run(run)
    values = config.mapping_from_yaml(storage.read_bytes(storage.join(url, "config.yaml")).decode())
    points = read_log(url)
    curves: dict[str, dict[int, float]] = {}
    for point in points:
        for name, value in point.values.items():
            curves.setdefault(name, {})[point.step] = value
    digest = (read_record(url).store_digest or "")[:16]
    return RunFigures(url, storage.base_name(url), flat_settings(values), digest, curves, fingerprints(points))


def differences(one: dict[str, str], two: dict[str, str]) -> list[tuple[str, str, str]]:
    """(setting, its value in one, in two) where they are not the same; "-" where a run has no such setting."""
    keys = sorted({*one, *two}, key=lambda key: (key not in one, key))
    rows = [(key, one.get(key, "-"), two.get(key, "-")) for key in keys]
    return [row for row in rows if row[1] != row[2]]


def same_data(one: dict[int, int], two: dict[int, int]) -> str:
    """How long two runs saw the same batches, by the fingerprints that both logged."""
    common = sorted({*one} & {*two})
    if not common:
        return "not comparable: no step was logged by both"
    other = next((step for step in common if one[step] != two[step]), None)
    if other is None:
        return f"the same batches at all {len(common)} steps that both logged, up to step {common[-1]:,}"
    before = [step for step in common if step < other]
    if not before:
        return f"other batches from step {other:,} on, the first that both logged"
    return f"the same batches up to step {before[-1]:,}, others at step {other:,}, the next that both logged"


def last_values(one: dict[str, Any], two: dict[str, Any]) -> list[tuple[str, Any, Any, Any, Any]]:
    """(metric, last step of one, value, last step of two, value) of each metric that both have."""
    ends = [(name, max(one[name]), max(two[name])) for name in sorted({*one} & {*two})]
    return [(name, a, f"{one[name][a]:.5g}", b, f"{two[name][b]:.5g}") for name, a, b in ends]


def curve_names(*runs: RunFigures) -> list[str]:
    """Metrics with a curve: those that a run is judged by first, then training, validation and speed."""
    order = {"train": 0, "val": 1, "perf": 2}
    names = {name for run in runs for name, points in run.curves.items() if len(points) > 1}
    return sorted(
        names - {"data/fingerprint_high", "data/fingerprint_low"},
        key=lambda name: (name not in HEADLINES, order.get(name.split("/")[0], 3), name),
    )


def page(
    names: tuple[str, str],
    data: str,
    changed: Sequence[tuple[str, str, str]],
    curves: Mapping[str, tuple[Curve, Curve]],
) -> str:
    """The page. names: the two runs'; data: what to say of their batches; changed: (setting, in one, in two); curves:
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
