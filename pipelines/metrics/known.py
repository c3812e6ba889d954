"""All metrics by their names."""

from collections.abc import Mapping

from pipelines.metrics import choices, spans, together
from pipelines.metrics.metric import Metric

METRICS: Mapping[str, Metric] = {**choices.METRICS, **together.METRICS, **spans.METRICS}
