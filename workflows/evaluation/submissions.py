"""SuperGLUE's test splits as files for its leaderboard, written beside the results."""

import json
from collections.abc import Iterable

from infra import storage
from pipelines.metrics.submission import FILES, submission
from workflows.evaluation.evaluation import Evaluated


def write_submissions(evaluated: Iterable[Evaluated], to: str) -> list[str]:
    """Write <to>/superglue/<model>-<digest>/<task>.jsonl for the answers to test splits, and to the diagnostics, which
    have one split, by the default pattern. Returns what to tell: the file, or why there is none.
    """
    told = []
    for one in evaluated:
        task = one.asked.task
        is_asked = one.asked.split == "test" or task.taught_by
        if task.name not in FILES or not is_asked or one.pattern != task.default_pattern:
            continue
        url = storage.join(to, "superglue", f"{one.model.name}-{one.model.digest[:8]}", FILES[task.name])
        try:
            lines = submission(task.name, one.items, labels=task.labels)
        except ValueError as error:
            told.append(f"{one.model.name} {task.name}: no file for the leaderboard, as {error}")
            continue
        storage.write_bytes(url, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode())
        told.append(f"{one.model.name} {task.name}, for the leaderboard: {url}")
    return told
