#!/usr/bin/env bash
# Ray Train 2.60.0: a training on a joined Ray ends with an error when another Ray is begun on the same machine.
#
# A good guess is that a training asks the Ray that it runs on. One of its own processes, PlacementGroupCleaner, asks each
# second whether the training's controller is alive, by the state API without an address, which takes the Ray that
# `ray start --head` began last on the machine. That one knows no such actor: the controller counts as dead, and the
# workers' placement group is removed below them. With the address of its Ray as RAY_ADDRESS in the environment of all
# processes, the training goes on.
#
# Output seen (some minutes; all processes below the temporary folder are ended, others are left alone):
#   2.60.0
#   plain: WorkerGroupError its placement group was removed
#   RAY_ADDRESS known to all: trained
set -euo pipefail
folder=$(mktemp -d)
export HOME="$folder" RAY_TMPDIR="$folder" RAY_AUTH_MODE=disabled RAY_USAGE_STATS_ENABLED=0
unset RAY_ADDRESS
python3 -m venv "$folder/venv"
export PATH="$folder/venv/bin:$PATH"
trap 'pkill -9 -f "$folder" || true; rm -rf "$folder"' EXIT
pip install -q --disable-pip-version-check "ray[default,train]==2.60.0"
cat > "$folder/train.py" <<'PYTHON'
import os
import sys
import time
from pathlib import Path

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

address, folder, *known = sys.argv[1:]
print(ray.__version__, flush=True)


def loop() -> None:
    Path(os.environ["BEGUN"]).touch()
    time.sleep(60)


names = {"BEGUN": f"{folder}/begun"} | ({"RAY_ADDRESS": address} if known else {})
ray.init(address, runtime_env={"env_vars": names})
run = RunConfig(storage_path=f"{folder}/runs", failure_config=FailureConfig(max_failures=0))
try:
    DataParallelTrainer(loop, scaling_config=ScalingConfig(num_workers=1), run_config=run).fit()
    print("trained")
except Exception as error:
    why = "its placement group was removed"
    print(type(error).__name__, why if why in str(error) else error)
PYTHON
train() {  # train PORT [known]: what a training on the Ray at PORT comes to when a second Ray begins in its middle
    local first=$1 second=$(($1 + 1))
    rm -f "$folder/begun"
    ray start --head --port="$first" --dashboard-port=$((first + 2000)) --num-cpus=2 --ray-client-server-port=$((first + 1000)) \
        >"$folder/start.log" 2>&1
    timeout 170 python "$folder/train.py" "127.0.0.1:$first" "$folder" "${@:2}" >"$folder/out.log" 2>"$folder/err.log" &
    local training=$!
    for _ in $(seq 120); do [ -e "$folder/begun" ] && break; sleep 0.5; done
    ray start --head --port="$second" --dashboard-port=$((second + 2000)) --num-cpus=1 --min-worker-port=30000 \
        --max-worker-port=30100 --ray-client-server-port=$((second + 1000)) >"$folder/start.log" 2>&1
    wait "$training" || true
    tail -n 1 "$folder/out.log"
    pkill -9 -f "$folder" || true
}
plain=$(train 6401)
known=$(train 6403 known)
head -n 1 "$folder/out.log"
echo "plain: $plain"
echo "RAY_ADDRESS known to all: $known"
[ "$plain" = "WorkerGroupError its placement group was removed" ]
[ "$known" = "trained" ]
