"""Compare what a store holds with the digests of its manifest."""

from dataclasses import dataclass

from infra import storage
from infra.errors import DataError
from pipelines.stages import Runner, run_stage
from pipelines.store.format import TokenStore, verify_shard


@dataclass(frozen=True)
class VerifyJob:
    """Compare the content of the shard at `url` with its digest."""

    url: str
    digest: str


@dataclass(frozen=True)
class Verified:
    """What came of a VerifyJob. problem: what is wrong with the shard, or None."""

    url: str
    problem: str | None


def verify(store: TokenStore, runner: Runner) -> None:
    """Compare the content of every shard with its digest. Raises DataError naming those that differ."""
    jobs = [
        VerifyJob(storage.join(split.base(number), shard.path), shard.digest)
        for split in store.splits
        for number, shard in enumerate(split.shards)
    ]

    def task(job: VerifyJob) -> Verified:
        return Verified(job.url, verify_shard(job.url, job.digest))

    damaged = [result for result in run_stage(runner, "verify", task, jobs) if result.problem]
    if damaged:
        raise DataError(
            f"{len(damaged)} of {len(jobs)} shards of {store.url} are damaged",
            why="\n".join(f"{result.url}: {result.problem}" for result in damaged[:5]),
            try_="remove these files and run workflows/prepare.py again: it makes missing shards again; or copy them "
            "again where the store is a copy",
        )
