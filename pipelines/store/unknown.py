"""Text that the tokenizer does not know: counted by source, warned of, and refused where it is much of a source.

It became [UNK], or nothing at all. A model never sees it and cannot write it, and the rest looks better than it is.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from infra.console import Console
from infra.errors import DataError
from pipelines.corpus.ledger import Balance, SourceBalance
from pipelines.store.shards import BuiltShard

WARNED = 0.01  # share of a source's bytes from which on a user is told


def count_unknown(balance: Balance, shards: Sequence[BuiltShard], *, limit: float, trained: bool) -> Balance:
    """The balance with the unknown bytes that these shards found. Warns of a source that has some, and raises DataError
    for one of which they reach the share `limit`, data.max_unknown.

    trained: whether the tokenizer was trained on the corpus, for the remedy.
    """
    total = Counter[str]()
    for shard in shards:
        total.update(shard.unknown_bytes)
    sources = tuple(replace(source, unknown_bytes=total[source.name]) for source in balance.sources)
    remedy = "--data.tokenizer.train.algorithm=bpe, which has a token for every byte"
    if not trained:
        remedy = f"give another vocabulary, or train one: leave out data.tokenizer.url, and add {remedy}"
    for source in sources:
        if source.unknown_share >= limit < 1:
            raise _too_much(source, limit, remedy)
    for source in sources:
        if source.unknown_share >= WARNED:
            Console().warn(
                f"the tokenizer does not know {source.unknown_share:.1%} of the text of {source.name!r}, which the "
                f"model will never see: {remedy}"
            )
    return replace(balance, sources=sources)


def share_text(share: float) -> str:
    """A share of text that is unknown, as shown."""
    return f"{share:.2%}" if share >= 0.0001 else "< 0.01 %" if share else "none"


def _too_much(source: SourceBalance, limit: float, remedy: str) -> DataError:
    return DataError(
        f"the tokenizer does not know {source.unknown_share:.1%} of the text of {source.name!r}: "
        f"{source.unknown_bytes or 0:,} of {source.num_bytes:,} bytes; data.max_unknown={limit:g} allows less",
        why="these characters or words became [UNK], or nothing: a model never sees them and cannot write them",
        try_=f"{remedy}; or accept the loss: --data.max_unknown=1",
    )
