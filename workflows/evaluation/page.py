"""One self-contained HTML page of an evaluation: scores, confusion, and the items that went worst and best."""

import html
import math
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.metrics.items import confusion, is_judged, judged
from pipelines.metrics.items_file import read_rows
from pipelines.metrics.metric import Answers, recorded
from pipelines.questions.task import Task
from workflows.evaluation.contamination import Contamination, contamination_rows, unknown_lines
from workflows.evaluation.evaluation import Evaluated
from workflows.evaluation.length_tables import length_tables
from workflows.evaluation.results import Result, table_rows
from workflows.evaluation.seeds import SeedResult, seed_rows

_SHOWN = 8  # items of each kind
_GROUPS = 200  # at most
_MOST_TEXT = 400  # characters of a candidate
STYLE = """
:root{color-scheme:light dark;--line:#8884;--good:#2a9d5c;--bad:#d1495b}
body{font:16px/1.55 system-ui,sans-serif;max-width:78rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin:2.2rem 0 .4rem}h3{font-size:1rem;margin:1.2rem 0 .3rem}
.wide{overflow-x:auto}
table{border-collapse:collapse;font:13px/1.45 ui-monospace,monospace}
td,th{border:1px solid var(--line);padding:.15rem .55rem;text-align:left;vertical-align:top}
td.n{text-align:right}td.q{white-space:pre-wrap;overflow-wrap:anywhere;min-width:24rem}
mark{background:#ffd16688;color:inherit}.right{color:var(--good)}.wrong{color:var(--bad)}
p{color:color-mix(in srgb,currentColor 80%,transparent);margin:.3rem 0}
"""


def render(
    evaluated: Sequence[Evaluated],
    results: Sequence[Result],
    over_seeds: Sequence[SeedResult],
    seen: Sequence[Contamination],
) -> str:
    """The page: no script, nothing to fetch."""
    title = "Evaluation of " + ", ".join(dict.fromkeys(one.model.name for one in evaluated))
    columns, rows = table_rows(results)
    parts = _seeds(over_seeds) + _contamination(seen) + "".join(_section(one) for one in evaluated)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}</style></head>
<body><h1>{html.escape(title)}</h1>
<p>Metrics are on 0 to 100; bits and perplexities are not, and less of them is better. The interval is over items: a
bootstrap that draws items of one group together. One answer is what it gets to answer everything alike; of items with
candidates of their own, chance. A bag of words learned from the train split. Without context is
what the model gets without reading what was public before, such as a passage. Candidates stand with their log p, the
right one <span class="right">green</span>, one that was chosen instead <span class="wrong">red</span>; ahead is by how
many nats the right one is likelier than the best other. What was generated stands above the right texts,
and ahead is the log p of the first of these.</p>
{html_table(columns, rows)}{parts}
</body></html>
"""


def _seeds(over_seeds: Sequence[SeedResult]) -> str:
    if not over_seeds:
        return ""
    told = (
        "<p>The mean of each metric over seeds, and its sample standard deviation. The interval is that of the mean, "
        "over items, for these seeds.</p>"
    )
    return f"<h2>Models that differ in their seed alone</h2>{told}{html_table(*seed_rows(over_seeds))}"


def _contamination(seen: Sequence[Contamination]) -> str:
    if not seen:
        return ""
    told = (
        "<p>Items of which something that is asked, or public context such as a passage, shares a run of 50 bytes with "
        "the cleaned text that the model was trained on; and the score of the items of which nothing that is asked "
        "does. Too short: nothing that is asked is long enough to be found.</p>"
    )
    columns, rows = contamination_rows(seen)
    unknown = "".join(f"<p>{html.escape(line)}</p>" for line in unknown_lines(seen))
    table = f"{told}{html_table(columns, rows)}" if rows else ""
    return f"<h2>In the text that the model was trained on</h2>{table}{unknown}"


def _section(one: Evaluated) -> str:
    task = one.asked.task
    pattern = task.pattern(one.pattern)
    title = f"{one.model.name}: {task.name} {one.asked.split}, pattern {one.pattern}"
    items = judged(one.items)
    told = f"<p>{html.escape(pattern.text)}</p>" if pattern.fields else ""
    told += _confusion(items, task.labels) if task.labels and len(items) else ""
    told += length_tables(one.items, html_table) if task.generation else _by_group(items)
    if len(items):
        margins = _margins(items, task)
        rows = np.flatnonzero(is_judged(one.items))
        order = np.argsort(margins, kind="stable")
        for kind, several in (("Worst", order[:_SHOWN]), ("Best", order[::-1][:_SHOWN])):
            told += f"<h3>{kind}</h3>{_items(read_rows(one.items_url, rows[several]), margins[several], task)}"
    left = np.flatnonzero(one.items["reason"].is_valid().to_numpy())[:_SHOWN]
    if len(left):
        cells = [[row["item"], row["reason"]] for row in one.items.take(pa.array(left)).to_pylist()]
        told += f"<h3>Without a question</h3>{html_table(['item', 'reason'], cells)}"
    return f"<h2>{html.escape(title)}</h2>{told}"


def _confusion(items: pa.Table, labels: Sequence[str]) -> str:
    counts = confusion(items, len(labels))
    rows = [[label, *map(int, row[:-1])] for label, row in zip(labels, counts, strict=True)]
    return f"<h3>Chosen (columns) for each gold label (rows)</h3>{html_table(['', *labels], rows)}"


def _by_group(items: pa.Table) -> str:
    """Accuracy of each group, where there are groups of several items, the worst first."""
    is_right = Answers(items, recorded(items), 0).is_right
    table = pa.table({"group": items["group"], "right": is_right.astype(np.float64)})
    found = table.group_by("group").aggregate([("right", "mean"), ([], "count_all")]).sort_by("group").to_pylist()
    named = [row for row in found if row["group"]]
    if not named or len(named) > _GROUPS or len(named) == len(items):
        return ""
    worst = sorted(named, key=lambda row: row["right_mean"])
    cells = [[row["group"], row["count_all"], f"{100 * row['right_mean']:.1f}"] for row in worst]
    return f"<details><summary>Accuracy by group</summary>{html_table(['group', 'n', 'accuracy'], cells)}</details>"


def _margins(items: pa.Table, task: Task) -> np.ndarray:
    """By how many nats the best right candidate is likelier than the best other one; negative where it is not chosen.
    Of what is to be written, its log p; of what is not, minus that. Where a text is generated: log p of a right one.
    """
    margins = array("d")
    for batch in items.select(["logprobs", "gold", "golds"]).to_batches(max_chunksize=10_000):
        for one in batch.to_pylist():
            logprobs, golds = one["logprobs"], one["golds"] or [one["gold"]]
            if task.generation:
                margins.append(logprobs[0] if math.isfinite(logprobs[0]) else -math.inf)
                continue
            if task.kind == "write":
                margins.append(logprobs[0] if not task.labels or golds == [1] else -logprobs[0])
                continue
            others = [value for number, value in enumerate(logprobs) if number not in golds]
            margins.append(max(logprobs[gold] for gold in golds) - max(others, default=0.0))
    return np.array(margins)


def _items(items: pa.Table, margins: np.ndarray, task: Task) -> str:
    cells = []
    for margin, one in zip(margins, items.to_pylist(), strict=True):
        answers = "<br>".join(
            f'<span class="{_color(number, one, task)}">{html.escape(_short(text))} {logprob:.2f}</span>'
            for number, (text, logprob) in enumerate(zip(one["candidates"], one["logprobs"], strict=True))
        )
        if task.generation:
            answers = f'{html.escape(_short(one["written"]))}<br><span class="right">{answers}</span>'
        question = html.escape(one["question"])
        for mask in ("[MASK]", "[sMASK]", "[gMASK]"):
            question = question.replace(mask, f"<mark>{mask}</mark>")
        cells.append(
            f"<tr><td>{html.escape(one['item'])}</td><td class='q'>{question}</td><td>{answers}</td>"
            f"<td class='n'>{margin:+.2f}</td></tr>"
        )
    names = ("item", "question", "candidates", "ahead")
    head = f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"
    return f"<div class='wide'><table>{head}{''.join(cells)}</table></div>"


def _short(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]} ..."


def _color(number: int, row: dict[str, Any], task: Task) -> str:
    """How a candidate of an item is shown."""
    if task.generation:
        return ""
    if task.kind == "write":
        return "" if number else "right" if row["choice"] == row["gold"] else "wrong"
    return "right" if number in (row["golds"] or [row["gold"]]) else "wrong" if number == row["choice"] else ""


def html_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td{_kind(cell)}>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<div class='wide'><table><tr>{head}</tr>{body}</table></div>"


def _kind(cell: object) -> str:
    text = str(cell).removesuffix(" %").replace(".", "", 1)
    return ' class="n"' if isinstance(cell, int | float) or text.lstrip("-").isdecimal() else ""
