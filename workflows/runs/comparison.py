"""How runs differ: their settings, the data that they saw, the text they validate on, their curves; and the page of it.

The page is one self-contained HTML file with a chart per metric: no script, nothing to fetch.
"""

import html as _html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from infra import config, storage
from infra.console import human
from workflows.runs.history import fingerprints, read_log
from workflows.runs.record import read_record
from workflows.runs.run import find_run
from workflows.settings.identity import flat_settings

Axis = Literal["steps", "tokens"]
_AXES: dict[Axis, str] = {"steps": "optimizer step", "tokens": "training tokens"}
_COLOURS = (
    "#1f77b4",
    "#d95f02",
    "#2ca02c",
    "#d62728",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#7f7f7f",
    "#bcbd22",
    "#17becf",
)
_DASHES = ("-", "--", ":", "-.")  # of the first ten runs, of the next ten
_STYLE = """
:root{color-scheme:light dark;--line:#8884}
body{font:16px/1.55 system-ui,sans-serif;max-width:76rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.05rem;margin:1.5rem 0 .4rem}
table{border-collapse:collapse;font:13px/1.4 ui-monospace,monospace;display:block;overflow-x:auto}
td,th{border:1px solid var(--line);padding:.15rem .5rem;text-align:left;overflow-wrap:anywhere}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(22rem,1fr));gap:1rem}
figure{margin:0;background:#fff;border-radius:.4rem;border:1px solid var(--line)}
svg{width:100%;height:auto;display:block}
input{margin-left:0}label{margin-right:1.2rem}
#steps:not(:checked)~.steps,#tokens:not(:checked)~.tokens{display:none}
"""


HEADLINES = ("train/loss", "val/loss", "val/accuracy", "val/bits_per_byte", "perf/tokens_per_second")
"""What the metrics begin with that a run is judged by first."""
SCORES = ("val/bits_per_byte", "val/accuracy", "val/loss", "train/loss")
"""Metrics of the table of runs, in which the first that a run has decides its place."""
_TOKENS, _SPEED = "data/tokens", "perf/tokens_per_second"
_HIGHER_IS_BETTER = ("val/accuracy",)


@dataclass(frozen=True)
class RunFigures:
    """What a run's folder says of it."""

    url: str
    name: str
    settings: dict[str, str]
    """By dotted key."""
    store_digest: str
    """Begins with 16 hexadecimal digits of it; empty before the run has begun, and where it reads no store."""
    curves: dict[str, dict[int, float]]
    """Metric -> {step: value}."""
    fingerprints: dict[int, int]
    """Step -> fingerprint of its batch."""

    @property
    def validates_on(self) -> tuple[str, str]:
        """Decides which text its validation reads: (digest of the store, how many of its held-out rows)."""
        return self.store_digest, self.settings.get("train.eval_rows", "-")

    def curve(self, metric: str, axis: Axis) -> dict[float, float]:
        """{step or training tokens: value} of a metric; empty where the run does not log the tokens."""
        points = self.curves.get(metric, {})
        if axis == "steps":
            return {float(step): value for step, value in points.items()}
        tokens = {step: count for step, count in self.curves.get(_TOKENS, {}).items() if step}
        if not tokens:
            return {}
        last = max(tokens)  # each step has equally many
        return {step * tokens[last] / last: value for step, value in points.items()}


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


def told_apart(runs: Sequence[RunFigures]) -> list[RunFigures]:
    """The same runs; those whose folders have one name are called by where they lie."""
    names = [run.name for run in runs]
    return [replace(run, name=run.url) if names.count(run.name) > 1 else run for run in runs]


def differences(settings: Sequence[Mapping[str, str]]) -> list[tuple[str, ...]]:
    """(setting, its value in each run) where they are not all the same; "-" where a run has no such setting."""
    keys = dict.fromkeys(key for one in settings for key in sorted(one))
    rows = [(key, *(one.get(key, "-") for one in settings)) for key in keys]
    return [row for row in rows if len(set(row[1:])) > 1]


def without_own(runs: Sequence[RunFigures], changed: Sequence[tuple[str, ...]]) -> tuple[list[tuple[str, ...]], str]:
    """(the settings that differ, without those of one kind of run alone; what was left out, "" where nothing is). Of
    runs of one kind a setting that some lack is one of another version, and stays.
    """
    if len({"task.name" in run.settings for run in runs}) == 1:
        return list(changed), ""
    both = [row for row in changed if "-" not in row[1:]]
    count = len(changed) - len(both)
    return both, f"pretraining and fine-tuning: {count} settings that only one of them has are left out"


def same_text(runs: Sequence[RunFigures]) -> str:
    """Whether the runs validate on the same text, so that their bits per byte can be compared."""
    if any("" in run.validates_on or run.validates_on[1] in ("-", "0") for run in runs):
        return "not comparable: some of the runs do not validate on the rows of a store"
    if len({run.validates_on for run in runs}) == 1:
        return f"all on the same text: {runs[0].validates_on[1]} held-out rows of the store {runs[0].store_digest}"
    groups: dict[tuple[str, str], list[str]] = {}
    for run in runs:
        groups.setdefault(run.validates_on, []).append(run.name)
    told = [f"{', '.join(names)} on {rows} rows of {digest}" for (digest, rows), names in groups.items()]
    return "on different texts, and bits per byte are not comparable: " + "; ".join(told)


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


def last_values(runs: Sequence[RunFigures]) -> tuple[list[str], list[list[str]]]:
    """A table of the runs, best first: names of its columns, and a row per run with its last values."""
    scores = [name for name in SCORES if any(name in run.curves for run in runs)]
    columns = [name for name in (_TOKENS, _SPEED) if any(name in run.curves for run in runs)]
    rows = []
    for run in sorted(runs, key=_rank):
        step = max((max(curve) for curve in run.curves.values()), default=0)
        values = [f"{_last(run, name):.5g}" if name in run.curves else "-" for name in scores]
        counts = [human(_last(run, name)) if name in run.curves else "-" for name in columns]
        rows.append([run.name, f"{step:,}", *values, *counts])
    return ["run", "step", *scores, *columns], rows


def curve_names(runs: Sequence[RunFigures]) -> list[str]:
    """Metrics with a curve: those that a run is judged by first, then training, validation, tasks and speed."""
    order = {"train": 0, "val": 1, "eval": 2, "perf": 3}
    names = {name for run in runs for name, points in run.curves.items() if len(points) > 1}
    return sorted(
        names - {"data/fingerprint_high", "data/fingerprint_low"},
        key=lambda name: (name not in HEADLINES, order.get(name.split("/")[0], 4), name),
    )


def page(runs: Sequence[RunFigures], facts: Mapping[str, str], changed: Sequence[Sequence[str]]) -> str:
    """The page. facts: name -> what to say of all runs; changed: as `differences` gives it."""
    names = [run.name for run in runs]
    legend = " · ".join(
        f'<span style="color:{_COLOURS[index % len(_COLOURS)]}">{_html.escape(name)}</span>'
        for index, name in enumerate(names)
    )
    told = "".join(f"<p>{_html.escape(name)}: {_html.escape(text)}.</p>" for name, text in facts.items())
    settings = _table(["setting", *names], changed) if changed else "<p>none</p>"
    differ = f"<h2>Settings that differ</h2>{settings}" if len(runs) > 1 else ""
    charts = ""
    for axis in _AXES:
        figures = "".join(f"<figure>{_chart(metric, runs, axis)}</figure>" for metric in curve_names(runs))
        charts += f'<div class="grid {axis}">{figures}</div>'
    choice = "".join(
        f'<input type="radio" name="axis" id="{axis}"{" checked" if axis == "steps" else ""}>'
        f'<label for="{axis}">{name}</label>'
        for axis, name in _AXES.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_html.escape(", ".join(names))}</title><style>{_STYLE}</style></head>
<body><h1>{legend}</h1>
{told}
<h2>Last values{", best first" if len(runs) > 1 else ""}</h2>{_table(*last_values(runs))}
{differ}
<h2>Curves</h2><div>{choice}{charts}</div>
</body></html>
"""


def _rank(run: RunFigures) -> tuple[bool, float]:
    """Sorts the best run first; those without a score, or with one that is not a number, last."""
    score = next((name for name in SCORES if name in run.curves), None)
    value = _last(run, score) if score else math.nan
    return math.isnan(value), 0.0 if math.isnan(value) else -value if score in _HIGHER_IS_BETTER else value


def _last(run: RunFigures, metric: str) -> float:
    curve = run.curves[metric]
    return curve[max(curve)]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{_html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(columns, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _chart(metric: str, runs: Sequence[RunFigures], axis: Axis) -> str:
    """A line per run, as the text of an SVG."""
    import matplotlib  # half a second to load
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    for index, run in enumerate(runs):
        points = [(x, value) for x, value in sorted(run.curve(metric, axis).items()) if math.isfinite(value)]
        colour, dash = _COLOURS[index % len(_COLOURS)], _DASHES[index // len(_COLOURS) % len(_DASHES)]
        axes.plot([p[0] for p in points], [p[1] for p in points], dash, color=colour, linewidth=1.4, alpha=0.85)
    axes.set_xlabel(_AXES[axis], fontsize=9)
    axes.set_ylabel(metric, fontsize=9)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=8)
    if axis == "tokens":
        axes.xaxis.set_major_formatter(lambda value, position: human(value))
    sink = io.StringIO()
    with matplotlib.rc_context(
        {"svg.fonttype": "none"}
    ):  # letters as text: a third of the size, and readable by search
        figure.savefig(sink, format="svg", metadata={"Date": None})
    text = sink.getvalue()
    return text[text.index("<svg") :]
