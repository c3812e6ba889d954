"""Stages that run in this process."""

import pytest
from helpers.selections import one_by_one

from pipelines import stages


@pytest.fixture
def ran(monkeypatch) -> list[dict]:
    """Items of the tasks that ran."""
    items: list[dict] = []
    monkeypatch.setattr(stages, "run_tasks", one_by_one(ran=items))
    return items
