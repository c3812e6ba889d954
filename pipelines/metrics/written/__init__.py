"""Metrics of texts that a model wrote, beside the right ones. Names say which variant they are."""
