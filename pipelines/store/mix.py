"""Several finished stores as one, by weights: a manifest that names its members and holds no rows of its own.

    <root>/mixes/<key>/manifest.json, tokenizer.json

Row p of a run comes from the member that a fixed pattern of the weights gives it (`pipelines.feed.order`), and each
member has epochs of its own; so one may be read several times while another is read in part.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

from infra import storage
from infra.errors import UserError
from pipelines.store import format as store
from pipelines.store.format import TokenStore

_SAME = ("tokenizer_digest", "vocab_size", "dtype")
_SAME_SETTINGS = ("sequence_length", "row_width", "blanks")


@dataclass
class Member:
    store: str
    """URL of a finished store."""
    weight: float = 1.0
    """Share of the training rows, before all weights are made to sum to 1."""


def mix(members: list[Member], root: str) -> TokenStore:
    """The store that these make, published below `root`; the same members and weights give the same one.

    Raises UserError for weights that are not positive and for stores that do not fit together.
    """
    if wrong := [member for member in members if not member.weight > 0]:
        raise UserError(
            f"data.mix gives {wrong[0].store} the weight {wrong[0].weight:g}", try_="positive weights; leave it out"
        )
    stores = [TokenStore.open(member.store) for member in members]
    for number, opened in enumerate(stores):
        if opened.url in [other.url for other in stores[:number]]:
            raise UserError(f"data.mix names {opened.url} twice", try_="once, with the sum of both weights")
        if "members" in opened.manifest:
            raise UserError(f"{opened.url} is a mix itself", try_="its members, each with its weight")
        if opened.train.rows == 0:
            raise UserError(f"{opened.url} has no training rows", try_="leave it out of data.mix")
    for other in stores[1:]:
        _check_fit(stores[0], other)
    total = sum(member.weight for member in members)
    entries = [
        {"url": opened.url, "digest": opened.digest, "weight": member.weight / total}
        for opened, member in zip(stores, members, strict=True)
    ]
    key = hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()[:24]
    url = storage.join(storage.absolute(root), "mixes", key)
    if not storage.exists(storage.join(url, "manifest.json")):
        tokenizer = storage.read_bytes(storage.join(stores[0].url, "tokenizer.json"))
        storage.write_bytes(storage.join(url, "tokenizer.json"), tokenizer)
        splits = {
            name: [replace(shard, store=opened.url) for opened in stores for shard in getattr(opened, name).shards]
            for name in store.SPLITS
        }
        store.publish(url, _manifest(stores, entries), splits)
    return TokenStore.open(url)


def _check_fit(first: TokenStore, other: TokenStore) -> None:
    for name, mine, its in [
        *((name, first.manifest[name], other.manifest[name]) for name in _SAME),
        *((name, first.manifest["settings"][name], other.manifest["settings"][name]) for name in _SAME_SETTINGS),
    ]:
        if mine != its:
            raise UserError(
                f"{first.url} and {other.url} cannot be mixed: their {name} differ, {mine} and {its}",
                try_="prepare one of them again with the settings of the other (data.tokenizer.url, "
                "data.sequence_length, data.row_width, blanks.mixture)",
            )


def _manifest(stores: list[TokenStore], entries: list[dict[str, Any]]) -> dict[str, Any]:
    manifests = [opened.manifest for opened in stores]
    names = [f"{storage.base_name(opened.url)[:8]}: " for opened in stores]
    return {
        **{name: manifests[0][name] for name in _SAME},
        # Weights and members decide what is read, as settings of a store do.
        "settings": {
            **{name: manifests[0]["settings"][name] for name in _SAME_SETTINGS},
            "members": [{name: entry[name] for name in ("digest", "weight")} for entry in entries],
        },
        "members": entries,
        "sources": [
            {**source, "name": name + source["name"]}
            for name, manifest in zip(names, manifests, strict=True)
            for source in manifest["sources"]
        ],
        "documents": {
            name: sum(manifest["documents"][name] for manifest in manifests) for name in ("read", "kept", "dropped")
        },
        "contamination": [found for manifest in manifests for found in manifest["contamination"]],
        "held_out_ends": sum(manifest["held_out_ends"] for manifest in manifests),
    }
