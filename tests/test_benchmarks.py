"""What benchmarks compare with does what it stands for: the per-sample construction gives the authors' arrays."""

import importlib.util
import json
import random
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def objective():
    spec = importlib.util.spec_from_file_location("benchmark_objective", ROOT / "benchmarks" / "objective.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def golden(shared):
    path = shared / "reference" / "golden" / "objective_examples.json"
    if not path.exists():
        pytest.skip("the authors' worked examples are not here (objective_examples.json is absent)")
    return json.loads(path.read_text())


def test_the_per_sample_arrays_are_the_authors(objective, golden):
    met = 0
    for example in golden["examples"]:
        if example.get("task") != "bert" or set(example["options"]) - {"shuffle_blocks"}:
            continue
        spans = [tuple(span) for span in example["spans_in_part_b_order"]]
        arrays = objective.block_data(example["tokens"], spans)
        for name, want in example["out"].items():
            assert arrays[name].tolist() == want, (example["name"], name)
        met += 1
    assert met == 5


def test_the_per_sample_places_are_the_authors(objective, golden):
    met = 0
    for case in golden["primitives"]:
        if case["function"] == "sample_spans":
            answers = iter(case["randrange_results"])
            bounds = []

            def randrange(bound, answers=answers, bounds=bounds):
                bounds.append(bound)
                return next(answers)

            spans = objective.sample_spans(case["span_lengths"], case["total_length"], case["offset"], randrange)
            assert [list(span) for span in spans] == case["out"]
            met += 1
    assert met == 2


def test_the_per_sample_blanks_have_the_statistics_of_ours(objective):
    rng = random.Random(0)
    tokens = [1, *range(20, 530), 0]
    masked, blanks = 0, 0
    for _ in range(300):
        arrays = objective.per_sample(tokens, rng)
        blanks += int((arrays["block_position_ids"] == 1).sum())
        masked += int(arrays["loss_mask"].sum())
    assert abs(blanks / 300 - 24.6) < 0.6  # the authors' mean number of blanks
    assert abs((masked - blanks) / 300 - 77.5) < 0.5  # and of blanked tokens
