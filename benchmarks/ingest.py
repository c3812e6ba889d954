"""The training feed beside Ray Data's `streaming_split`, on one token store: CPU, first batch, waiting, bytes read.

    python benchmarks/ingest.py --store runs/data/stores/<key> [--batches 400] [--rounds 3] [--train-steps 6] [--s3]
        [--json FILE]

Both make micro-batches of one row: read, decode, draw the blanks (no stored plans), lay out. `feed` is
`pipelines.feed.steps` in one process, as a train worker runs it. `streaming_split` reads the same columns of the same
files by `ray.data.read_parquet(...).streaming_split(1)`, with the same functions on each row in the consumer; its CPU
counts all processes of a local Ray less what an idle one needs as long. Interleaved, medians. `data_wait_share` is of
a real training of `mini` on this machine; with --s3 the store is copied to a local S3 server (moto) and read from
there through a proxy that counts bytes: `read_amplification` is bytes read over the bytes of the rows that were used.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
_IDLE_S = 5.0


def main() -> None:
    options = _options()
    runs: dict[str, list[float]] = {}
    with _local_ray() as (cpu_s, idle_rate):
        for _ in range(options.rounds):
            for name, measure in (("feed", _feed), ("streaming_split", _streaming_split)):
                for key, value in measure(options.store, options.batches, cpu_s, idle_rate).items():
                    runs.setdefault(f"{name}: {key}", []).append(value)
    values = {name: statistics.median(found) for name, found in runs.items()}
    if options.train_steps:
        values["feed: data_wait_share"] = _data_wait_share(options.store, options.train_steps)
    if options.s3:
        values["feed: read_amplification"] = _read_amplification(options.store)
    print(f"{'':36} {'median':>12}   spread")
    for name, value in values.items():
        found = sorted(runs.get(name, [value]))
        print(f"{name:36} {value:12,.3f}   {found[0]:,.3f} to {found[-1]:,.3f}")
    ratios = {
        "cpu": values["feed: mtok_per_cpu_s"] / values["streaming_split: mtok_per_cpu_s"],
        "first_batch": values["streaming_split: first_batch_s"] / values["feed: first_batch_s"],
    }
    for name, ratio in ratios.items():
        print(f"{'feed against streaming_split, ' + name:44} {ratio:6.1f} x")
    if options.json:
        named = {name.replace(": ", "_"): value for name, value in values.items()}
        report = {"name": "ingest", "machine": platform.processor() or platform.machine()}
        Path(options.json).write_text(json.dumps(report | {"values": named, "ratios": ratios}, indent=2))


class _Opened:
    """A store with what turns its rows into micro-batches."""

    def __init__(self, url: str, *, plans: bool) -> None:
        from glm_model.tokenizer import Tokenizer
        from pipelines import blanks, feed
        from pipelines.batches import BatchPlan
        from pipelines.blanks import BlanksConfig
        from pipelines.plans import plan_key
        from pipelines.store import TokenStore

        self.store, self.tokenizer = TokenStore.open(url), Tokenizer.load(url)
        settings = self.store.manifest["settings"]
        config, width = BlanksConfig(**settings["blanks"]), settings["row_width"]
        key = plan_key(config, blanks.resolve(config), seed=config.seed, width=width) if plans else None
        self.recipe = feed.recipe_of(self.store, self.tokenizer, config, plan_key=key)
        groups = tuple(self.store.train.group_rows.tolist())
        self.plan = BatchPlan(groups, seed=1, micro_rows=1, micro_batches=1)


def _feed(url: str, batches: int, cpu_s, idle_rate: float) -> dict[str, float]:
    from pipelines import feed

    started_at, before = time.perf_counter(), time.process_time()
    opened = _Opened(url, plans=False)
    reader = feed.Reader(opened.store.train, opened.recipe)
    tokens, first_s = 0, 0.0
    for item in feed.steps(reader, opened.plan, start=0, stop=batches, rank=0, world=1):
        first_s = first_s or time.perf_counter() - started_at
        tokens += item.micro_batches[0][1].tokens
    return {"mtok_per_cpu_s": tokens / 1e6 / (time.process_time() - before), "first_batch_s": first_s}


def _streaming_split(url: str, batches: int, cpu_s, idle_rate: float) -> dict[str, float]:
    import pyarrow as pa
    import ray.data

    from pipelines import blanks, examples
    from pipelines.store import read_rows

    started_at, before = time.perf_counter(), cpu_s()
    opened = _Opened(url, plans=False)
    split, recipe = opened.store.train, opened.recipe
    files = [f"{split.base(number)}/{shard.path}" for number, shard in enumerate(split.shards)]
    (part,) = ray.data.read_parquet(files).streaming_split(1)
    tokens, first_s = 0, 0.0
    found = part.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=4)
    for table in itertools.islice(found, batches):
        rows = read_rows(pa.table(table), split.dtype)
        drawn, _ = blanks.draw_rows(
            recipe.mixture, rows, recipe.vocabulary, seed=recipe.seed, epoch=0, width=recipe.width
        )
        examples.lay_out(
            rows,
            drawn,
            recipe.mixture,
            recipe.vocabulary,
            width=recipe.width,
            marks=recipe.marks,
            length=recipe.sequence_length,
        )
        first_s = first_s or time.perf_counter() - started_at
        tokens += len(rows.tokens)
    used = cpu_s() - before - idle_rate * (time.perf_counter() - started_at)
    return {"mtok_per_cpu_s": tokens / 1e6 / used, "first_batch_s": first_s}


def _data_wait_share(url: str, steps: int) -> float:
    """Share of a training's time that it waits for its feed, from the second step on."""
    from glm_model import GLM
    from glm_model.config import OptimConfig, sized
    from glm_model.train import TrainStep, make_optimizer
    from pipelines import feed

    opened = _Opened(url, plans=True)
    length = opened.recipe.sequence_length
    step = TrainStep(
        GLM(sized("mini", vocab_size=opened.tokenizer.padded_vocab_size, positions=length)),
        num_objectives=len(opened.recipe.mixture.names),
    )
    optimizer = make_optimizer(step, OptimConfig())
    waited, started_at = 0.0, time.perf_counter()
    reader = feed.Reader(opened.store.train, opened.recipe)
    for item in feed.steps(reader, opened.plan, start=0, stop=steps + 1, rank=0, world=1):
        waited += item.waited_s
        sums, _ = step(item.micro_batches[0][1].tensors())
        sums.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if item.step == 0:  # the first one allocates, compiles and warms up
            waited, started_at = 0.0, time.perf_counter()
    return waited / (time.perf_counter() - started_at)


def _read_amplification(url: str) -> float:
    """Bytes that a reader of the whole first epoch fetches from S3, over those of the files that hold its rows."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    import s3fs
    import servers

    from infra import storage
    from pipelines import feed

    with servers.s3_server() as address, servers.unreliable(address, lambda number, line: None) as proxy:
        keys = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ |= {**keys, "AWS_ENDPOINT_URL": proxy.url, "AWS_EC2_METADATA_DISABLED": "true"}
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("benchmark")
        storage.upload_dir(url, "s3://benchmark/store")
        opened = _Opened("s3://benchmark/store", plans=True)
        reader = feed.Reader(opened.store.train, opened.recipe)
        before = proxy.sent
        for _ in feed.steps(reader, opened.plan, start=0, stop=opened.store.train.rows, rank=0, world=1):
            pass
        used = sum(
            info.size
            for info in storage.list_files(url)
            if info.path in {shard.path for shard in opened.store.train.shards}
            or info.path.startswith(f"plans/{opened.recipe.plan_key}/train/epoch-00000")
        )
        return (proxy.sent - before) / used


@contextlib.contextmanager
def _local_ray() -> Iterator[tuple[Any, float]]:
    """A local Ray: (CPU seconds of this process and all of Ray's so far, what an idle Ray takes a second)."""
    import psutil

    from infra import cluster

    joined = cluster.connect(cluster.ClusterConfig(local_cpus=2), min_cpus=1)
    here = psutil.Process()

    def cpu_s() -> float:
        total = 0.0
        for process in [here, *here.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    try:
        before = cpu_s()
        time.sleep(_IDLE_S)
        yield cpu_s, (cpu_s() - before) / _IDLE_S
    finally:
        cluster.shutdown(joined)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="a finished store, on this machine")
    parser.add_argument("--batches", type=int, default=400, help="micro-batches of one row")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-steps", type=int, default=6, help="of mini, for data_wait_share; 0: leave it out")
    parser.add_argument("--s3", action="store_true", help="also count what is read from a local S3")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
