"""All metrics by their names."""

from collections.abc import Mapping

from pipelines.metrics import choices, likelihood, spans, together
from pipelines.metrics.metric import Metric

METRICS: Mapping[str, Metric] = {**choices.METRICS, **together.METRICS, **spans.METRICS, **likelihood.METRICS}


def shown(metric: str, value: float) -> str:
    """A value with as many digits as its metric is told with."""
    return f"{value:.{METRICS[metric].digits}f}"


def shown_interval(metric: str, low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{shown(metric, low)} to {shown(metric, high)}"
