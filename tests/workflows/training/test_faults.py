"""Law 7: whatever breaks a run, at whatever step, the run that comes of it is the one that nothing broke.

Bit for bit on CPUs in fp32 at equal world size, with dropout; at another world size with equal fingerprints and losses
within 1e-5. `make chaos` breaks one run at random for some minutes.
"""

import os
import random
import subprocess
import time
from pathlib import Path

import pytest
import torch
from helpers import faults, small_run
from helpers.faults import FAULTS, STEPS, Driver, Trial

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
CHAOS_MINUTES = float(os.environ.get("CHAOS_MINUTES") or 1)
SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(10**6))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    return small_run.write_corpus(tmp_path_factory.mktemp("faults") / "corpus")


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory) -> Trial:
    """The run of two workers that nothing breaks."""
    return Trial(corpus, tmp_path_factory.mktemp("runs"), "whole").run()


def finish(trial: Trial) -> Trial:
    """Start the run again until it ends well."""
    for _ in range(5):
        if trial.start().wait() == 0:
            return trial
    raise AssertionError(trial.output())


def broken(trial: Trial, fault: str, step: int) -> Trial:
    """The run with this fault at this step, carried to its end."""
    driver = trial.start()
    assert driver.reach(step), trial.output()
    assert FAULTS[fault](driver), "the fault struck"
    if driver.process.poll() is None and driver.wait() == 0:
        return trial
    return finish(trial)


def assert_equal(trial: Trial, whole: Trial) -> None:
    assert trial.losses() == whole.losses()
    assert trial.fingerprints() == whole.fingerprints()
    ours, theirs = trial.weights(), whole.weights()
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_invisible(corpus, whole, tmp_path, fault):
    step = random.Random(f"{SEED} {fault}").randrange(12, STEPS - 15)
    print(f"seed {SEED}: {fault} at step {step}")
    more = ("--train.hang_s=8",) if fault == "a worker hangs" else ()
    trial = broken(Trial(corpus, tmp_path, "broken", more=more), fault, step)
    assert_equal(trial, whole)
    if fault in ("killed while a checkpoint is written", "the newest checkpoint is damaged"):
        assert "incomplete and skipped" in trial.output()
    if fault in ("a worker is killed", "all workers are killed", "a worker hangs"):
        assert "failed: " in trial.output()
        assert "started again with 2 workers, from step" in trial.output()


def test_a_full_disk_is_told_and_costs_nothing_but_time(corpus, whole, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        trial = Trial(corpus, disk, "full")
        driver = trial.start()
        assert driver.reach(12), trial.output()
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space left"):
            fill(filler)
        assert driver.wait() == 5, trial.output()
        assert "No space left on device" in trial.output()
        filler.unlink()
        assert_equal(finish(trial), whole)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))


def test_another_number_of_workers_goes_on(corpus, tmp_path):
    # At a rate of 0.01 the last bits of a sum grow tenfold every ten steps.
    more = ("--optim.lr=0.001", "--optim.matrix_lr=0.002", "--train.steps=100")
    whole = Trial(corpus, tmp_path / "whole", "run", more=more).run()
    trial = Trial(corpus, tmp_path / "worlds", "run", more=more)
    for workers, until in (("1", 20), ("2", 45), ("3", 70)):
        trial.workers = workers
        driver = trial.start()
        assert driver.reach(until), trial.output()
        faults.terminate_driver(driver)
    trial.workers = "1"
    finish(trial)
    assert trial.worlds() == [1, 2, 3, 1]
    assert trial.fingerprints() == whole.fingerprints()
    assert trial.losses() == pytest.approx(whole.losses(), rel=1e-5)


def test_exact_makes_three_workers_resume_to_the_bit(corpus, tmp_path):
    more = ("--train.exact=true",)
    unbroken = Trial(corpus, tmp_path / "a", "run", "3", more).run()
    assert_equal(broken(Trial(corpus, tmp_path / "b", "run", "3", more), "all workers are killed", 17), unbroken)


def test_a_stop_while_steps_are_timed_begins_no_training(corpus, tmp_path):
    trial = Trial(corpus, tmp_path, "timed", "1", ("--train.steps=null", "--train.hours=1", "--train.batch_tokens=20k"))
    driver = trial.start()
    faults.until(lambda: "timing a few steps" in trial.output() and bool(driver.workers()), trial.output)
    driver.process.terminate()
    assert driver.wait() == 130, trial.output()
    assert not trial.folder.exists()


@pytest.mark.parametrize("when", ["Ray starts", "Ray has started"])
def test_sigterm_before_there_are_workers_ends_with_130_too(corpus, tmp_path, when):
    trial = Trial(corpus, tmp_path, "early", more=(f"--data.root={tmp_path / 'data'}",))
    driver = trial.start()
    if when == "Ray starts":
        faults.until(lambda: any("gcs_server" in faults.told(p) for p in driver.family()), trial.output)
    else:
        faults.until(lambda: "started a local Ray" in trial.output(), trial.output)
    driver.process.terminate()
    assert driver.wait() == 130, trial.output()
    assert trial.output().endswith("error: interrupted\nexit 130 (interrupted)\n")


def test_a_run_has_one_driver(corpus, tmp_path):
    trial = Trial(corpus, tmp_path, "twice", more=("--train.steps=100000",))
    first = trial.start()
    assert first.reach(1), trial.output()
    assert trial.start().wait() == 2
    assert "is being trained by another process" in trial.output()
    faults.terminate_driver(first)


@pytest.mark.timeout(60 * CHAOS_MINUTES + 600)
def test_chaos(corpus, whole, tmp_path):
    """Random faults at random times until the minutes are over (CHAOS_MINUTES, else one), run after run."""
    chance, minutes = random.Random(SEED), CHAOS_MINUTES
    print(f"seed {SEED}")
    until, counts, runs = time.monotonic() + 60 * minutes, dict.fromkeys(FAULTS, 0), 0
    while time.monotonic() < until:
        trial = Trial(corpus, tmp_path, f"chaos-{runs}", more=("--train.hang_s=8",))
        driver: Driver | None = None
        while driver is None or driver.wait() != 0:
            driver = trial.start()
            while driver.reach(trial.step() + chance.randrange(1, 15)) and time.monotonic() < until:
                fault = chance.choice(list(FAULTS))
                counts[fault] += FAULTS[fault](driver)
        assert_equal(trial, whole)
        runs += 1
    print(f"seed {SEED}: {runs} runs of {STEPS} steps, {sum(counts.values())} faults, nothing lost")
    for fault, count in counts.items():
        print(f"  {count:4}  {fault}")
    assert sum(counts.values()) >= minutes
