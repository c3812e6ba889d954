"""Some of the items of a task: the same ones whatever the order of the file, and part of any larger number of them."""

import hashlib
import heapq
from collections.abc import Iterable

from pipelines.questions.task import Item


def rank(item: Item) -> int:
    """Those of the smallest ranks are drawn. Items that are judged together share one."""
    return int.from_bytes(hashlib.blake2b((item.joint or item.id).encode(), digest_size=8).digest())


def last_rank(items: Iterable[Item], count: int) -> int | None:
    """The rank of the last of so many items, in the order of ranks: those up to it are drawn. None: there are none."""
    return max(heapq.nsmallest(count, map(rank, items)), default=None)
