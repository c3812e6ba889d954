"""docs/task_data.md has the table that its script prints of the data beside this checkout."""

from pathlib import Path

import pytest
from helpers import benchmark_modules

PAGE = Path(__file__).resolve().parents[1] / "docs" / "task_data.md"


@pytest.mark.slow
def test_the_page_has_the_table_of_its_script(shared):
    script = benchmark_modules.load("task_splits")
    printed = script.markdown(list(script.splits_of(shared / "data")))
    assert printed == [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
