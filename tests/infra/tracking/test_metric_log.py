"""Points reach the file always, and MLflow once each."""

import json
import math
import os
import resource
import threading

import pytest

from infra.errors import DataError, InfrastructureError
from infra.tracking import TrackingConfig, open_run
from infra.tracking.metric_log import MetricLog, read_points
from infra.tracking.mlflow_client import NOT_TRACKED, RunHandle, client_of

pytestmark = pytest.mark.integration


@pytest.fixture
def handle(mlflow_root) -> RunHandle:
    return open_run(
        TrackingConfig(), name="x", run_dir="x", params={}, tags={}, run_id=None, default_root=str(mlflow_root)
    )


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "run" / "metrics.jsonl")


def history(handle: RunHandle, key: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client_of(handle.uri).get_metric_history(handle.run_id, key))


def steps(path: str) -> list[int]:
    return [point.step for point in read_points(path)]


def test_points_are_in_the_file_at_once_and_in_mlflow_after_a_flush(handle, path):
    log = MetricLog(path, handle)
    for step in range(1, 6):
        log.log(step, {"train/loss": 1 / step, "perf/mfu": 0.5})
    assert [p.values for p in read_points(path)] == [{"train/loss": 1 / s, "perf/mfu": 0.5} for s in range(1, 6)]
    assert log.close(30)
    assert history(handle, "train/loss") == [(s, 1 / s) for s in range(1, 6)]


def test_fingerprints_stay_in_the_file(handle, path):
    values = {"data/fingerprint_high": 7.0, "data/fingerprint_low": 8.0}
    log = MetricLog(path, handle)
    log.log(1, {**values, "train/loss": 1.0})
    log.log(2, values)
    assert log.close(30)
    assert [point.values for point in read_points(path)] == [{**values, "train/loss": 1.0}, values]
    assert client_of(handle.uri).get_run(handle.run_id).data.metrics == {"train/loss": 1.0}


def test_a_metric_has_one_value_per_step(handle, path):
    """Training and validation of one step both say where on the axes it is."""
    log = MetricLog(path, handle)
    log.log(4, {"train/loss": 1.0, "data/tokens": 40.0})
    log.log(4, {"val/loss": 2.0, "data/tokens": 40.0})
    log.log(4, {"val/loss": 2.0})
    log.log(5, {"data/tokens": 50.0})
    assert log.close(30)
    assert [point.values for point in read_points(path)] == [
        {"train/loss": 1.0, "data/tokens": 40.0},
        {"val/loss": 2.0},
        {"data/tokens": 50.0},
    ]
    assert history(handle, "data/tokens") == [(4, 40.0), (5, 50.0)]


def test_mlflow_lists_first_what_a_run_is_judged_by(handle, path):
    """Its page that compares runs opens on the metric that came first."""
    log = MetricLog(path, handle, interval_s=0.0)
    log.log(0, {"val/loss_token": 3.0, "val/bits_per_byte": 2.0, "val/loss": 3.0})
    log.log(1, {"perf/step_s": 1.0, "train/loss": 4.0})
    assert log.close(30)
    found = client_of(handle.uri).get_run(handle.run_id).data.metrics
    assert list(found) == ["val/bits_per_byte", "train/loss", "val/loss", "val/loss_token", "perf/step_s"]


def test_a_run_that_ends_at_its_first_validation_sends_it(handle, path):
    log = MetricLog(path, handle)
    log.log(0, {"val/bits_per_byte": 2.0})
    assert log.close(30)
    assert history(handle, "val/bits_per_byte") == [(0, 2.0)]


def test_a_file_url_is_the_path_that_it_names(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    url = f"file://{tmp_path}/run/metrics.jsonl"
    log = MetricLog(url, NOT_TRACKED)
    log.log(1, {"a": 1.0})
    assert log.close()
    assert steps(url) == steps(str(tmp_path / "run" / "metrics.jsonl")) == [1]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_non_finite_values_are_text_in_the_file(path, handle):
    log = MetricLog(path, handle)
    log.log(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    assert log.close(30)
    with open(path) as file:
        assert json.loads(file.read())["values"] == {"a": "nan", "b": "inf", "c": "-inf"}
    (point,) = read_points(path)
    assert math.isnan(point.values["a"])
    assert (point.values["b"], point.values["c"]) == (math.inf, -math.inf)
    assert math.isnan(history(handle, "a")[0][1])


def test_a_resume_cuts_the_file_back_and_repeats_no_point(handle, path):
    log = MetricLog(path, handle)
    for step in range(1, 11):
        log.log(step, {"loss": float(step)})
    assert log.close(30)
    with open(path, "a") as file:
        file.write('{"step": 11, "ti')
    log = MetricLog(path, handle, resume_step=6)
    assert steps(path) == [1, 2, 3, 4, 5, 6]
    for step in range(7, 13):
        log.log(step, {"loss": float(step), "new": 0.0})
    assert log.close(30)
    assert steps(path) == list(range(1, 13))
    assert history(handle, "loss") == [(s, float(s)) for s in range(1, 13)]
    assert history(handle, "new") == [(s, 0.0) for s in range(7, 13)]


def test_a_value_that_the_file_has_of_the_step_is_not_logged_again(handle, path):
    log = MetricLog(path, handle)
    log.log(0, {"val": 1.0})
    log.log(1, {"loss": 2.0})
    assert log.close(30)
    again = MetricLog(path, handle, resume_step=0)
    again.log(0, {"val": 1.0})
    again.log(0, {"val": 1.0, "new": 3.0})
    again.log(1, {"loss": 2.0})
    assert again.close(30)
    assert [(p.step, p.values) for p in read_points(path)] == [
        (0, {"val": 1.0}),
        (0, {"new": 3.0}),
        (1, {"loss": 2.0}),
    ]
    assert history(handle, "val") == [(0, 1.0)]


def test_a_file_that_takes_no_more_is_told_once(path):
    """What ends a run is the full disk, not the file that cannot be closed after it."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    log = MetricLog(path, NOT_TRACKED)
    log.log(1, {"loss": 1.0})
    with open("/dev/full", "ab", buffering=0) as full:
        os.dup2(full.fileno(), log._file.fileno())
    with pytest.raises(InfrastructureError, match=r"cannot write .*metrics\.jsonl: .*No space left"):
        log.log(2, {"loss": 1.0})
    assert log.close()
    assert steps(path) == [1]


def test_a_line_for_half_of_which_there_was_room_leaves_nothing(path):
    log = MetricLog(path, NOT_TRACKED)
    log.log(1, {"loss": 1.0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path) + 10, hard))
    try:
        with pytest.raises(InfrastructureError, match=r"cannot write .*: .*too large"):
            log.log(2, {"loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.log(3, {"loss": 1.0})
    assert log.close()
    assert steps(path) == [1, 3]


def test_an_outage_is_made_good_by_the_next_resume(handle, path):
    away = MetricLog(path, RunHandle("http://127.0.0.1:9", handle.run_id, "0"))
    away.log(1, {"loss": 1.0})
    assert not away.close(1.0)
    assert away.problem is not None
    back = MetricLog(path, handle, resume_step=1)
    back.log(2, {"loss": 2.0})
    assert back.close(30)
    assert history(handle, "loss") == [(1, 1.0), (2, 2.0)]


def test_a_name_that_mlflow_refuses_holds_up_no_other(handle, path):
    log = MetricLog(path, handle)
    log.log(1, {"mfu(%)": 1.0, "loss": 2.0})
    log.log(2, {"loss": 3.0})
    assert log.close(30)
    assert history(handle, "loss") == [(1, 2.0), (2, 3.0)]


def test_many_points_go_in_several_requests(handle, path):
    log = MetricLog(path, handle)
    for step in range(30):
        log.log(step, {f"m{i}": float(step) for i in range(90)})
    assert log.close(50)
    assert history(handle, "m89") == [(s, float(s)) for s in range(30)]


def test_threads_may_log_together(path):
    log = MetricLog(path, NOT_TRACKED)
    threads = [
        threading.Thread(target=lambda i=i: [log.log(i * 100 + k, {"a": 1.0}) for k in range(100)]) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.close()
    assert sorted(steps(path)) == list(range(400))


def test_a_new_log_goes_on_after_a_torn_line(path):
    log = MetricLog(path, NOT_TRACKED)
    log.log(1, {"a": 1.0})
    log.close()
    with open(path, "a") as file:
        file.write('{"step": 2')
    log = MetricLog(path, NOT_TRACKED)
    log.log(3, {"a": 1.0})
    log.close()
    assert steps(path) == [1, 3]


def test_a_last_line_that_is_not_whole_yet_is_not_read(path):
    log = MetricLog(path, NOT_TRACKED)
    log.log(1, {"a": 1.0})
    log.log(2, {"a": 2.0})
    log.close()
    with open(path, "rb") as file:
        one, two = file.readlines()
    for size in range(len(two)):
        with open(path, "wb") as file:
            file.write(one + two[:size])
        assert steps(path) == [1], size
    with open(path, "wb") as file:
        file.write(one + two)
    assert steps(path) == [1, 2]


def test_a_torn_line_in_the_middle_is_an_error(path):
    log = MetricLog(path, NOT_TRACKED)
    log.log(1, {"a": 1.0})
    log.close()
    with open(path, "a") as file:
        file.write('{"step": 2\n{"step": 3, "time": 0, "values": {}}\n')
    with pytest.raises(DataError, match=r"line 2 of .*metrics\.jsonl is not valid JSON"):
        steps(path)
