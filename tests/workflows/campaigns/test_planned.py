"""What the folder of a run tells of it while it runs."""

from workflows.campaigns.planned import logged_step


def test_the_step_of_a_run_is_the_last_one_that_can_be_read(tmp_path):
    log = tmp_path / "metrics.jsonl"
    assert logged_step(str(tmp_path)) == 0
    log.write_text('{"step": 1, "time": 1.0, "values": {}}\n{"step": 7, "time": 2.0, "values": {}}\n{"step": 8')
    assert logged_step(str(tmp_path)) == 7
    log.write_text("damaged\n")
    assert logged_step(str(tmp_path)) == 0
