"""Several finished stores as one, by weights: a manifest that names its members and holds no rows of its own.

    <root>/mixes/<key>/manifest.json, tokenizer.json

Row p of a run comes from the member that a fixed pattern of the weights gives it (`pipelines.feed.order`), and each
member has epochs of its own; so one may be read several times while another is read in part.
"""

import hashlib
import json
from dataclasses import asdict, replace

from infra import storage
from infra.errors import UserError
from pipelines.corpus.ledger import DocumentCounts
from pipelines.store.config import Member
from pipelines.store.format import SPLITS, TokenStore, publish
from pipelines.store.manifest import Manifest, MixedStore

_SAME = ("tokenizer_digest", "vocab_size", "dtype")
_SAME_SETTINGS = ("sequence_length", "row_width", "blanks")


def mix(members: list[Member], root: str) -> TokenStore:
    """The store that these make, published below `root`; the same members and weights give the same one.

    Raises UserError for weights that are not positive and for stores that do not fit together.
    """
    if wrong := [member for member in members if not member.weight > 0]:
        raise UserError(
            f"data.mix gives {wrong[0].store} the weight {wrong[0].weight:g}",
            try_="give it a positive weight, or leave it out",
        )
    stores = [TokenStore.open(member.store) for member in members]
    _check(stores)
    total = sum(member.weight for member in members)
    mixed = [
        MixedStore(store.url, store.digest, member.weight / total)
        for store, member in zip(stores, members, strict=True)
    ]
    entries = [asdict(one) for one in mixed]
    key = hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:24]
    url = storage.join(storage.absolute(root), "mixes", key)
    if not storage.exists(storage.join(url, "manifest.json")):
        tokenizer = storage.read_bytes(storage.join(stores[0].url, "tokenizer.json"))
        storage.write_bytes(storage.join(url, "tokenizer.json"), tokenizer)
        splits = {
            name: [replace(shard, store=store.url) for store in stores for shard in getattr(store, name).shards]
            for name in SPLITS
        }
        publish(url, _manifest(stores, mixed), splits)
    return TokenStore.open(url)


def _check(stores: list[TokenStore]) -> None:
    for number, store in enumerate(stores):
        if store.url in [other.url for other in stores[:number]]:
            raise UserError(f"data.mix names {store.url} twice", try_="name it once, with the sum of both weights")
        if store.manifest.members:
            raise UserError(f"{store.url} is a mix itself", try_="name its members, each with its weight")
        if store.train.rows == 0:
            raise UserError(f"{store.url} has no training rows", try_="leave it out of data.mix")
    for other in stores[1:]:
        _check_fit(stores[0], other)


def _check_fit(first: TokenStore, other: TokenStore) -> None:
    for name, one, another in [
        *((name, getattr(first.manifest, name), getattr(other.manifest, name)) for name in _SAME),
        *((name, first.manifest.settings[name], other.manifest.settings[name]) for name in _SAME_SETTINGS),
    ]:
        if one != another:
            raise UserError(
                f"{first.url} and {other.url} cannot be mixed: their {name} differ, {one} and {another}",
                try_="prepare one of them again with the settings of the other (data.tokenizer.url, "
                "data.sequence_length, data.row_width, blanks.mixture)",
            )


def _manifest(stores: list[TokenStore], mixed: list[MixedStore]) -> Manifest:
    manifests = [store.manifest for store in stores]
    first, documents = manifests[0], [manifest.documents for manifest in manifests]
    return Manifest(
        tokenizer_digest=first.tokenizer_digest,
        vocab_size=first.vocab_size,
        dtype=first.dtype,
        # Weights and members decide what is read, as settings of a store do.
        settings={
            **{name: first.settings[name] for name in _SAME_SETTINGS},
            "members": [{"digest": one.digest, "weight": one.weight} for one in mixed],
        },
        documents=DocumentCounts(
            read=sum(counts.read for counts in documents),
            kept=sum(counts.kept for counts in documents),
            dropped=sum(counts.dropped for counts in documents),
        ),
        sources=tuple(
            replace(source, name=f"{storage.base_name(store.url)[:8]}: {source.name}")
            for store in stores
            for source in store.manifest.sources
        ),
        contamination=tuple(report for manifest in manifests for report in manifest.contamination),
        held_out_ends=sum(manifest.held_out_ends for manifest in manifests),
        members=tuple(mixed),
    )
