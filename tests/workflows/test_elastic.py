"""Workers that come and go: two local nodes, of which one joins a running training and is announced to leave again."""

import os
import subprocess
import sys

import faults
import pytest
from faults import Trial

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

# Answers each line of its input, and ends with it.
NODES = """
import logging, os, subprocess, sys
import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
print(cluster.address, flush=True)
second = None
for line in sys.stdin:
    if line == "join\\n":
        second = cluster.add_node(num_cpus=1)
    if line == "announce\\n":
        subprocess.run(
            [os.path.join(os.path.dirname(sys.executable), "ray"), "drain-node", "--address", cluster.address,
             "--node-id", second.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
             "--deadline-remaining-seconds", "20"], check=True, capture_output=True)
    if line == "leave\\n":
        cluster.remove_node(second, allow_graceful=False)
    print("done", flush=True)
ray.shutdown()
cluster.shutdown()
"""


@pytest.fixture
def nodes():
    """say(word): one node, which a second one may `join`, `announce` to leave and `leave`; and its address."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with subprocess.Popen(
        [sys.executable, "-c", NODES], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()

        def say(word: str) -> None:
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"

        yield say, address
        process.stdin.close()


def test_workers_join_and_leave_and_the_run_is_the_same(nodes, tmp_path):
    """Ray looks for new nodes every 20 s, so the run is longer than those of other tests."""
    say, address = nodes
    corpus = faults.write_corpus(tmp_path / "corpus")
    more = ("--train.steps=300", "--train.checkpoint_every=20", "--optim.lr=0.001")
    whole = Trial(corpus, tmp_path / "whole", "run", "1", more).run()
    trial = Trial(
        corpus,
        tmp_path / "elastic",
        "run",
        "[1,2]",
        more=(*more, "--train.resize_every_s=3"),
        environment={"RAY_ADDRESS": address},
    )
    driver = trial.start()
    assert driver.reach(4), trial.output()
    say("join")
    faults.until(lambda: 2 in trial.worlds() or driver.process.poll() is not None, trial.output)
    say("announce")
    faults.until(lambda: "about to leave" in trial.output() or driver.process.poll() is not None, trial.output)
    say("leave")
    assert driver.wait() == 0, trial.output()
    assert trial.worlds() == [1, 2, 1], trial.output()
    assert trial.fingerprints() == whole.fingerprints()
    ours, theirs = trial.losses(), whole.losses()
    resized = trial.first_step_of(2)
    for step in range(1, resized + 20):
        assert ours[step] == pytest.approx(theirs[step], rel=1e-5), step
