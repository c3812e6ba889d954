"""Two Ray nodes on this machine: one joins a training and is announced to leave it again, one sees no folder of it."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable

import pytest
from helpers import asked, faults, small_run
from helpers.faults import Trial

from infra import checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]

# Answers each line of its input, and ends with it.
NODES = """
import logging, os, subprocess, sys, time
import ray
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
ray.init(cluster.address, log_to_driver=False, logging_level=logging.ERROR)
print(cluster.address, flush=True)
second = blind = None
for line in sys.stdin:
    if line == "join\\n":
        second = cluster.add_node(num_cpus=1)
    if line == "announce\\n":
        subprocess.run(
            [os.path.join(os.path.dirname(sys.executable), "ray"), "drain-node", "--address", cluster.address,
             "--node-id", second.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot",
             "--deadline-remaining-seconds", "20"], check=True, capture_output=True)
    if line.startswith("hide "):
        start = "exec ray start --block --num-cpus=1 --address=" + cluster.address
        hidden = "mount -t tmpfs tmpfs " + line.split()[1] + " && " + start
        path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
        blind = subprocess.Popen(["unshare", "--mount", "sh", "-c", hidden], env={**os.environ, "PATH": path},
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len([node for node in ray.nodes() if node["Alive"]]) < 2 and blind.poll() is None:
            time.sleep(0.2)
    if line == "leave\\n":
        cluster.remove_node(second, allow_graceful=False)
    print("done", flush=True)
if blind:
    blind.terminate()
    blind.wait()
ray.shutdown()
cluster.shutdown()
"""


@pytest.fixture
def nodes():
    """say(word): one node, which a second one may `join`, `announce` to leave and `leave`; and its address."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with (
        # `ray start` leaves its address where others look for a Ray. (Paths of sockets have 107 bytes at most.)
        tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder,
        subprocess.Popen(
            [sys.executable, "-c", NODES],
            env=environment | {"RAY_TMPDIR": folder},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        address = process.stdout.readline().strip()

        def say(word: str) -> None:
            process.stdin.write(f"{word}\n")
            process.stdin.flush()
            assert "done\n" in process.stdout, "it answers, after what Ray prints for itself"

        yield say, address
        process.stdin.close()


def test_workers_join_and_leave_and_the_run_is_the_same(nodes, tmp_path):
    """Ray looks for new nodes every 20 s: the run has no end in sight, and is stopped once it has seen both."""
    say, address = nodes
    corpus = small_run.write_corpus(tmp_path / "corpus")
    more = ("--train.steps=5000", "--train.eval_every=0", "--train.resize_every_s=3", "--train.checkpoint_every=47")
    # Where Ray has not yet seen that the node is gone, it waits so long for room for two: 60 s by default.
    ray = {"RAY_ADDRESS": address, "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15"}
    trial = Trial(corpus, tmp_path / "elastic", "run", "[1,2]", more, ray)
    driver = trial.start()

    def wait_until(happens: Callable[[], bool]) -> None:
        faults.until(lambda: happens() or driver.process.poll() is not None, trial.output)
        assert driver.process.poll() is None, trial.output()

    # Before the first checkpoint a resize would begin the run again, and leave no step of the single worker.
    wait_until(lambda: checkpoint.latest(str(trial.folder / "checkpoints")) is not None)
    say("join")
    wait_until(lambda: 2 in trial.worlds())
    say("announce")
    wait_until(lambda: "is about to leave the cluster" in trial.output())
    announced = int(re.findall(r"a checkpoint of step ([\d,]+) is written now", trial.output())[0].replace(",", ""))
    wait_until(lambda: (trial.folder / f"checkpoints/step-{announced:08d}/manifest.json").exists())
    say("leave")
    wait_until(lambda: trial.worlds() == [1, 2, 1])
    faults.terminate_driver(driver)

    resized, last = trial.first_step_of(2), trial.step()
    unchanged = Trial(corpus, tmp_path / "unchanged", "run", "1", more)
    driver = unchanged.start()
    faults.until(lambda: unchanged.step() >= last, unchanged.output)
    faults.terminate_driver(driver)
    expected = unchanged.fingerprints()
    assert trial.fingerprints() == {step: expected[step] for step in range(1, last + 1)}
    ours, theirs = trial.losses(), unchanged.losses()
    for step in range(1, min(resized + 20, last)):
        assert ours[step] == pytest.approx(theirs[step], rel=1e-5), step


def test_places_that_only_one_node_sees_are_refused_with_the_remedy(nodes, tmp_path):
    say, address = nodes
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("a process cannot have mounts of its own here")
    corpus = small_run.write_corpus(tmp_path / "corpus")
    (tmp_path / "runs").mkdir()
    say(f"hide {tmp_path / 'runs'}")
    for more, told, remedy in (
        (("--tracking.enabled=true",), "MLflow's database sqlite:", "start `mlflow server` on one of them"),
        ((), "run.storage_path=", "a folder that all nodes share, or a URL: --run.storage_path=s3://..."),
    ):
        trial = Trial(corpus, tmp_path / "runs", f"run{len(more)}", "2", more, {"RAY_ADDRESS": address})
        assert trial.start().wait() == 2
        assert told in trial.output()
        assert remedy in trial.output()


def test_sources_that_only_one_node_sees_are_refused_before_they_are_read(nodes, tmp_path):
    say, address = nodes
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("a process cannot have mounts of its own here")
    corpus = small_run.write_corpus(tmp_path / "corpus")
    say(f"hide {corpus}")
    trial = Trial(corpus, tmp_path / "runs", "run", "2", environment={"RAY_ADDRESS": address})
    assert trial.start().wait() == 2, trial.output()
    assert f"data.sources[0].url={corpus} is a place of this machine only" in trial.output()
    assert f"1 other node(s) do not see {corpus}/texts.jsonl" in trial.output()
    assert not (tmp_path / "corpus-data" / "text").exists()


def test_a_machine_that_is_gone_for_good_ends_the_run_with_words(nodes, tmp_path):
    say, address = nodes
    say("join")
    corpus = small_run.write_corpus(tmp_path / "corpus")
    more = ("--train.steps=5000", "--train.eval_every=0", "--cluster.wait_s=45", "--train.hang_s=20")
    trial = Trial(corpus, tmp_path / "runs", "run", "2", more, {"RAY_ADDRESS": address})
    driver = trial.start()
    assert driver.reach(8), trial.output()
    say("leave")
    assert driver.wait() == 5, trial.output()
    assert "no free resources for 2 workers after waiting 45 s" in trial.output()
    reached = checkpoint.latest(str(trial.folder / "checkpoints"))
    assert reached is not None
    assert reached.step >= 5


def test_two_nodes_answer_as_one_process_does(nodes, tmp_path, tiny_tokenizer):
    """Each node has room for one worker, so that both are asked."""
    say, address = nodes
    say("join")
    model = asked.model_folder(tmp_path / "model", tiny_tokenizer)
    asked.write(tmp_path / "data" / "dev.jsonl", asked.rows(400))
    own = "--task.name=classification", f"--task.data={tmp_path}/data", "--task.words={bad: cat, good: dog}"

    def answers(name: str, *more: str, **environment: str) -> bytes:
        to = tmp_path / name
        words = [sys.executable, "workflows/evaluate.py", "--models", model, *own, f"--to={to}", *more]
        off = "--tracking.enabled=false"
        done = subprocess.run([*words, off], env=os.environ | environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        (items,) = to.rglob("items.parquet")
        return items.read_bytes()

    assert answers("two", "--num_workers=2", RAY_ADDRESS=address) == answers("one")
