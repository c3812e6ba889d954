"""A run whose data, checkpoints, logs and model lie on S3, with a cache on disk: it is the run that lies on disk."""

import pytest
import torch
from helpers import faults, small_run
from helpers.faults import Trial

from glm_model import GLM
from infra import storage

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.integration, pytest.mark.timeout(400)]


def test_a_run_on_s3_that_is_killed_is_the_one_on_disk(s3, tmp_path):
    corpus, cache = small_run.write_corpus(tmp_path / "corpus"), tmp_path / "cache"
    theirs = Trial(corpus, tmp_path, "run").run()

    place = storage.join(s3, "here")
    more = (f"--data.root={place}/data", f"--run.storage_path={place}/runs", f"--data.cache={cache}")
    trial = Trial(corpus, tmp_path / "s3", "run", more=more)
    ours = storage.join(place, "runs/run")
    saved = storage.join(ours, "checkpoints/step-00000010/manifest.json")
    driver = trial.start()
    faults.until(lambda: storage.exists(saved) or driver.process.poll() is not None, trial.output)
    assert faults.kill_driver(driver), "the run had not ended"
    trial.run()

    assert faults.losses(ours) == theirs.losses()
    assert sorted(theirs.losses()) == list(range(1, faults.STEPS + 1))
    one, two = (GLM.from_pretrained(storage.join(run, "model")).state_dict() for run in (ours, str(theirs.folder)))
    assert [name for name in two if not torch.equal(one[name], two[name])] == []
    assert list(cache.rglob("*-*")), "what was read of the store is kept on disk"
