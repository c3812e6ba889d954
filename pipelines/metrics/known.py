"""All metrics by their names."""

from collections.abc import Mapping

from pipelines.metrics import choices, likelihood, spans, together
from pipelines.metrics.metric import Metric
from pipelines.metrics.written import blanks, characters, rouge, sacre, simplification, squad

_FAMILIES = (choices, together, spans, likelihood, rouge, sacre, characters, blanks, simplification, squad)
METRICS: Mapping[str, Metric] = {name: metric for family in _FAMILIES for name, metric in family.METRICS.items()}


def shown(metric: str, value: float) -> str:
    """A value with as many digits as its metric is told with."""
    return f"{value:.{METRICS[metric].digits}f}"


def shown_interval(metric: str, low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{shown(metric, low)} to {shown(metric, high)}"
