"""Stages that run in this process."""

import pytest
from selections import one_by_one

from pipelines import dataflow


@pytest.fixture
def ran(monkeypatch) -> list[dict]:
    """Items of the tasks that ran."""
    items: list[dict] = []
    monkeypatch.setattr(dataflow, "run_tasks", one_by_one(ran=items))
    return items
