"""Metrics: how answers are judged, on 0 to 100, from items.parquet alone. A file per family of metrics."""
