"""Whether blanks are filled as they were, whatever the case of letters and the white space between them."""

import numpy as np

from pipelines.metrics.metric import Answers, Metric, sum_by_group


def same(right: str, written: str) -> bool:
    return "".join(right.lower().split()) == "".join(written.lower().split())


def _sums(answers: Answers, groups: np.ndarray) -> np.ndarray:
    """(how many are filled rightly, how many there are), of each item."""
    rows = answers.items["blanks"].to_pylist()
    counted = [(sum(same(blank["right"], blank["written"]) for blank in blanks), len(blanks)) for blanks in rows]
    return sum_by_group(np.array(counted, np.float64).reshape(-1, 2), groups)


def _value(sums: np.ndarray) -> np.ndarray:
    return 100.0 * sums[..., 0] / sums[..., 1]


METRICS = {"exact_match": Metric(_sums, _value, needs="written", counted=lambda sums: int(sums[1]))}
