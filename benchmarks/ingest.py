"""The training feed beside Ray Data's `streaming_split`, on one token store: CPU, first batch, waiting, bytes read.

    python benchmarks/ingest.py --store runs/data/stores/<key> [--batches 3000] [--step-rows 8] [--rounds 3]
        [--train-steps 6] [--s3] [--json FILE]

Both make micro-batches of one row, those of a step (--step-rows; the feed at most eight) laid out together: read,
decode, draw the blanks, lay out. `feed` is `pipelines.feed` in one process, as a train worker runs it, with the
blanks that the store has of its first epoch; `feed_drawn` draws them all, as `streaming_split` does; `feed_for_gpu`
leaves the layout to the device that trains. `streaming_split` reads the same columns of the same files by
`ray.data.read_parquet(...).streaming_split(1)`, with the same functions in the consumer; its CPU counts all processes
of a local Ray less what an idle one needs as long. Interleaved, medians. Rates are by CPU time, the start included (a
store to open, a read to plan; not imports); `first_batch_s` is the wall time from there to the first step.
`data_wait_share` is of a real training of `mini` on this machine, one row a step, from the second step on.

With --s3 the store is copied to a local S3 server (moto) and two epochs are read from there through a proxy that counts
bytes: `read_amplification` is bytes read over the bytes of the files that hold what was used, each epoch's for itself.
A client of S3 has no page cache, so this is the store that no page cache holds: each epoch fetches every byte of it.
`disk_cache_read_amplification` is of the second epoch, `infra.storage.disk_cache` having kept the first.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipelines.blanks.mixture import BlanksConfig, resolve

os.environ.setdefault("OMP_NUM_THREADS", "1")
_IDLE_S = 5.0


def main() -> None:
    options = _options()
    runs: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        runs.setdefault(name, []).append(value)

    with _local_ray() as ray_cpu_s:
        step = {"micro_batches": options.step_rows}
        _rate(_fed, options.store, 1, time.process_time, **step, expand_on_device=True)  # imports what all need
        for _ in range(options.rounds):
            for name, source, clock, how in (
                ("feed", _fed, time.process_time, {}),
                ("feed_drawn", _fed, time.process_time, {"stored": False}),
                ("feed_for_gpu", _fed, time.process_time, {"expand_on_device": True}),
                ("streaming_split", _split, ray_cpu_s, {"stored": False}),
            ):
                rate, first_s = _rate(source, options.store, options.batches, clock, **step, **how)
                note(f"{name}_mtok_per_cpu_s", rate)
                if name in _PREFIXES:
                    note(f"{_PREFIXES[name]}first_batch_s", first_s)
        if options.train_steps:
            note("data_wait_share", _data_wait_share(_fed, options.store, options.train_steps))
            note("streaming_split_data_wait_share", _data_wait_share(_split, options.store, options.train_steps))
        if options.s3:
            for name, value in _read_amplifications(options.store).items():
                note(name, value)
    _report(runs, options.json)


_PREFIXES = {"feed": "", "streaming_split": "streaming_split_"}


def _report(runs: dict[str, list[float]], place: str | None) -> None:
    values = {name: statistics.median(found) for name, found in runs.items()}
    print(f"{'':40} {'median':>10}   spread")
    for name, found in runs.items():
        print(f"{name:40} {values[name]:10,.4f}   {min(found):,.4f} to {max(found):,.4f}")
    other = values["streaming_split_mtok_per_cpu_s"]
    ratios = {
        "cpu": values["feed_mtok_per_cpu_s"] / other,
        "cpu_drawn": values["feed_drawn_mtok_per_cpu_s"] / other,
        "first_batch": values["streaming_split_first_batch_s"] / values["first_batch_s"],
    }
    for name, ratio in ratios.items():
        print(f"{'feed against streaming_split, ' + name:44} {ratio:6.1f} x")
    if place:
        report = {"name": "ingest", "machine": platform.processor() or platform.machine()}
        Path(place).write_text(json.dumps(report | {"values": values, "ratios": ratios}, indent=2))


class _Opened:
    """A store with what turns its rows into micro-batches. stored: use the blanks that it has."""

    def __init__(
        self,
        url: str,
        *,
        stored: bool = True,
        expand_on_device: bool = False,
        micro_batches: int,
        cache: Any = None,
    ) -> None:
        from glm_model.tokenizer import Tokenizer
        from pipelines.feed.examples import feed_settings
        from pipelines.feed.order import BatchPlan
        from pipelines.feed.stored_blanks import blanks_key
        from pipelines.store.format import TokenStore

        self.store, self.tokenizer = TokenStore.open(url, cache=cache), Tokenizer.load(url)
        config, width = BlanksConfig(**self.store.manifest.packed_for), self.store.manifest.row_width
        key = blanks_key(resolve(config), seed=config.seed, width=width) if stored else None
        self.settings = feed_settings(
            self.store, self.tokenizer, config, blanks_key=key, expand_on_device=expand_on_device
        )
        groups = tuple(self.store.train.group_rows.tolist())
        self.plan = BatchPlan(groups, seed=1, micro_rows=1, micro_batches=micro_batches)


def _fed(opened: _Opened) -> Iterator[list[Any]]:
    """The micro-batches of step after step, as a train worker gets them."""
    from pipelines.feed.micro_batches import RowReader, steps

    reader = RowReader(opened.store.train, opened.settings)
    for item in steps(reader, opened.plan, start=0, stop=1 << 40, rank=0, world=1):
        yield [micro_batch for _, micro_batch in item.micro_batches]


def _split(opened: _Opened, filesystem: Any = None) -> Iterator[list[Any]]:
    """The same from `streaming_split`, epoch after epoch. filesystem: pyarrow's, where the files are not local."""
    import pyarrow as pa
    import ray.data

    from pipelines.feed.examples import draw_epoch
    from pipelines.feed.micro_batches import make_micro_batches
    from pipelines.store.format import read_rows

    train, settings = opened.store.train, opened.settings
    files = [f"{train.base(number)}/{shard.path}".removeprefix("s3://") for number, shard in enumerate(train.shards)]
    (part,) = ray.data.read_parquet(files, filesystem=filesystem).streaming_split(1)
    for epoch in itertools.count():
        for table in part.iter_batches(
            batch_size=opened.plan.micro_batches, batch_format="pyarrow", prefetch_batches=4
        ):
            rows = read_rows(pa.table(table), train.dtype)
            blanks = draw_epoch(rows, settings, epoch)
            yield make_micro_batches(rows, blanks, [1] * (len(rows.row_offsets) - 1), settings)


def _rate(
    source: Callable[[_Opened], Iterator[list[Any]]], url: str, batches: int, cpu_s: Callable[[], float], **how: Any
) -> tuple[float, float]:
    """(M tokens per CPU-second, seconds to the first step) of a fresh source."""
    started_at, before = time.perf_counter(), cpu_s()
    tokens = made = 0
    first_s = 0.0
    with contextlib.closing(source(_Opened(url, **how))) as steps:
        while made < batches:
            step = next(steps)
            first_s = first_s or time.perf_counter() - started_at
            tokens += sum(micro_batch.tokens for micro_batch in step)
            made += len(step)
        return tokens / 1e6 / (cpu_s() - before), first_s


def _data_wait_share(source: Callable[[_Opened], Iterator[list[Any]]], url: str, train_steps: int) -> float:
    """Share of a training's time that it waits for its next row, from the second step on."""
    from glm_model import GLM
    from glm_model.config import OptimConfig, sized
    from glm_model.train import TrainStep, make_optimizer
    from workflows.training.to_device import to_device

    opened = _Opened(url, micro_batches=1)
    length = opened.settings.sequence_length
    step = TrainStep(
        GLM(sized("mini", vocab_size=opened.tokenizer.padded_vocab_size, positions=length)),
        num_objectives=len(opened.settings.mixture.names),
    )
    optimizer = make_optimizer(step, OptimConfig())
    waited = started_at = 0.0
    with contextlib.closing(source(opened)) as steps:
        for number in range(train_steps + 1):
            asked_at = time.perf_counter()
            (micro_batch,) = next(steps)
            waited += time.perf_counter() - asked_at
            sums, _ = step(to_device(micro_batch))
            sums.sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if number == 0:  # the first one allocates, compiles and warms up
                waited, started_at = 0.0, time.perf_counter()
    return waited / (time.perf_counter() - started_at)


def _read_amplifications(url: str) -> dict[str, float]:
    """Bytes that readers of two whole epochs fetch from S3, over those of the files that hold what they use."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    import pyarrow.fs
    import s3fs
    from helpers import servers

    from infra import storage
    from infra.storage.disk_cache import DiskCache

    with (
        tempfile.TemporaryDirectory(prefix="glm-cache-") as folder,
        servers.s3_server() as address,
        servers.unreliable(address, lambda number, line: None) as proxy,
    ):
        keys = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_DEFAULT_REGION": "us-east-1"}
        os.environ |= {**keys, "AWS_ENDPOINT_URL": proxy.url, "AWS_EC2_METADATA_DISABLED": "true"}
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir("benchmark")
        storage.upload_dir(url, "s3://benchmark/store")
        # Ray's workers were started before: they get the address with the file system.
        for_ray = pyarrow.fs.S3FileSystem(
            access_key="tests", secret_key="tests", region="us-east-1", endpoint_override=proxy.url
        )

        def fetched(steps: Iterator[list[Any]], rows: int) -> int:
            before = proxy.sent
            while rows > 0:
                rows -= len(next(steps))
            return proxy.sent - before

        def amplification(source: Callable[..., Iterator[list[Any]]], cache: DiskCache | None, **how: Any) -> list:
            opened = _Opened("s3://benchmark/store", stored=source is _fed, micro_batches=1, cache=cache)
            shards, rows = opened.store.train.shards, opened.store.train.rows
            row_bytes = _bytes_of(url, lambda path: path in {shard.path for shard in shards})
            plan_bytes = _bytes_of(url, lambda path: path.startswith(f"plans/{opened.settings.blanks_key}/train/"))
            with contextlib.closing(source(opened, **how)) as steps:
                first, second = fetched(steps, rows), fetched(steps, rows)
            return [(first + second) / (2 * row_bytes + plan_bytes), second / row_bytes]

        return {
            "read_amplification": amplification(_fed, None)[0],
            "streaming_split_read_amplification": amplification(_split, None, filesystem=for_ray)[0],
            "disk_cache_read_amplification": amplification(_fed, DiskCache(folder, max_bytes=1 << 40))[1],
        }


def _bytes_of(url: str, wanted: Callable[[str], bool]) -> int:
    from infra import storage

    return sum(info.size for info in storage.list_files(url) if wanted(info.path))


@contextlib.contextmanager
def _local_ray() -> Iterator[Callable[[], float]]:
    """A local Ray; yields a clock: CPU seconds of this process and all of Ray's, less what an idle Ray takes."""
    import psutil

    from infra.cluster import connect

    joined = connect.connect(connect.ClusterConfig(local_cpus=2), min_cpus=1)
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
        idle_rate = (cpu_s() - before) / _IDLE_S
        yield lambda: cpu_s() - idle_rate * time.perf_counter()
    finally:
        connect.shutdown(joined)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="a finished store, on this machine")
    parser.add_argument("--batches", type=int, default=3000, help="micro-batches of one row; epochs follow each other")
    parser.add_argument("--step-rows", type=int, default=8, help="micro-batches of a step")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-steps", type=int, default=6, help="of mini, for data_wait_share; 0: leave it out")
    parser.add_argument("--s3", action="store_true", help="also count what is read from a local S3")
    parser.add_argument("--json", help="write the figures to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
