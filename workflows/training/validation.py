"""Validation: loss and bits per byte of the held-out rows, on the blanks that are stored with them.

`bits_per_byte` without a suffix is the unidirectional form (`[CLS] [gMASK]`, then the whole text), which can be set
beside n-gram models and compressors; with an objective's name it is comparable only within that objective. Where the
rows come from several sources, `val/<source>/loss` and `val/<source>/bits_per_byte` (unidirectional) tell each apart.

Each byte that the tokenizer does not know costs 8 bits besides what the model pays for [UNK]: otherwise a vocabulary
would score the better the more it does not know. Their share of a source's bytes is that of the whole source.
"""

import math
import re
from dataclasses import dataclass, replace

import numpy as np
import torch

from glm_model.train import TrainStep
from pipelines.blanks.mixture import BlanksConfig, Mixture, resolve
from pipelines.feed.examples import FeedSettings
from pipelines.feed.micro_batches import RowReader
from pipelines.feed.order import RowPlaces
from pipelines.ragged import Blanks, RowBatch
from pipelines.store import lineage
from pipelines.store.format import TokenStore
from pipelines.store.manifest import Manifest
from workflows.training.engine import Place
from workflows.training.to_device import to_device


@dataclass(frozen=True)
class Validation:
    """The held-out rows that are used, micro-batch by micro-batch, as two questions: the run's own blanks, and the
    whole text from left to right.
    """

    places: list[RowPlaces]
    blanks: RowReader
    text: RowReader
    sources: lineage.Sources
    unknown_shares: np.ndarray
    """Share of the bytes of each source that the tokenizer does not know, [S]; of all where there is one source."""


def validation_of(
    opened: TokenStore, settings: FeedSettings, mask_tokens: str, *, rows: int, micro_rows: int
) -> Validation:
    """Up to `rows` validation rows of a store: the first in store order, of a mix from each member in turn."""
    places = _places(opened, rows, micro_rows)
    config = BlanksConfig(mixture="gpt", mask_tokens="task" if mask_tokens == "task" else "one")
    text = replace(settings, mixture=resolve(config), blanks_key=None)
    several = len({source.name for source in opened.manifest.sources}) > 1
    groups = {int(group) for place in places for group in place.group} if several else set()
    sources = lineage.sources_of(opened.validation, groups)
    return Validation(
        places,
        RowReader(opened.validation, settings),
        RowReader(opened.validation, text),
        sources,
        _unknown_shares(opened.manifest, sources.names),
    )


@torch.no_grad()
def validate(step: TrainStep, validation: Validation, place: Place) -> dict[str, float]:
    """Metrics of the validation rows, computed by all workers together."""
    was_training = step.training
    step.eval()
    names = validation.sources.names
    asked = _totals(step, validation, validation.blanks, place)
    read = _totals(step, validation, validation.text, place)[:, :1]
    step.train(was_training)
    mixture = validation.blanks.settings.mixture
    metrics = _of_blanks(asked.sum(axis=2), mixture) | _of_text(read.sum(axis=(1, 2)))
    if len(names) > 1:
        for index, name in enumerate(_plain(names)):
            own = _of_blanks(asked[:, :, index], mixture) | _of_text(read[:, 0, index])
            shown = [key for key in ("loss", "bits_per_byte") if f"val/{key}" in own]
            metrics |= {f"val/{name}/{key}": own[f"val/{key}"] for key in shown}
    return metrics


def _totals(step: TrainStep, validation: Validation, reader: RowReader, place: Place) -> np.ndarray:
    """(summed loss, targets, bytes, unknown bytes) per objective and source over all workers, float64 [4, O, S].

    Each pair of an objective and a source is an objective of its own to the loss.
    """
    ranks, num_sources = place.ranks, max(len(validation.sources.names), 1)
    pairs = step.num_objectives * num_sources
    totals = torch.zeros(3, pairs, dtype=torch.float64)
    for index, places in enumerate(validation.places):
        if index % ranks.world == ranks.rank:
            rows, blanks = reader.read(places)
            source = validation.sources.of(rows.ids)
            tensors = to_device(reader.micro_batch(places), ranks.device)
            of_segment = tensors["segment_ids"].cpu() + torch.from_numpy(rows.row_offsets[:-1])[:, None]
            of_position = torch.from_numpy(source)[of_segment.clamp(0, len(source) - 1)]
            pair = tensors["objective_ids"] * num_sources + of_position.to(ranks.device)
            sums, counts = step({**tensors, "objective_ids": pair}, num_objectives=pairs)
            totals[0] += sums.cpu()
            totals[1] += counts.cpu()
            own = blanks.objective.astype(np.int64) * num_sources + source
            num_bytes = blank_bytes(rows, blanks, reader.settings.token_classes.eos)
            totals[2] += torch.from_numpy(np.bincount(own, weights=num_bytes, minlength=pairs))
            place.beat()
    summed = ranks.sum(totals).numpy().reshape(3, step.num_objectives, num_sources)
    return np.concatenate((summed, summed[2:] * validation.unknown_shares))


def blank_bytes(rows: RowBatch, blanks: Blanks, eos: int) -> np.ndarray:
    """UTF-8 bytes of each segment's blanks, float64 [N]: those of its text by the blanked share of its tokens.

    rows, blanks: segments and their blanks; eos: its id, which does not stand for text.
    """
    lengths, has_eos = np.diff(rows.offsets), rows.tokens[rows.offsets[1:] - 1] == eos
    reaches_end = np.maximum.reduceat(blanks.spans[:, 1], blanks.span_offsets[:-1]) == lengths
    return rows.num_bytes * (blanks.tokens - (has_eos & reaches_end)) / np.maximum(lengths - 1 - has_eos, 1)


def _places(opened: TokenStore, rows: int, micro_rows: int) -> list[RowPlaces]:
    split = opened.validation
    group_rows = split.group_rows
    group = np.repeat(np.arange(len(group_rows)), group_rows)
    row = np.concatenate([np.arange(n) for n in group_rows]) if len(group_rows) else np.zeros(0, np.int64)
    stores = [split.base(shard) for shard, _ in split.group_places]
    turn = np.zeros(len(group), np.int64)
    for store in dict.fromkeys(stores):
        mine = np.isin(group, [index for index, other in enumerate(stores) if other == store])
        turn[mine] = np.arange(mine.sum())
    order = np.argsort(turn, kind="stable")[:rows]
    group, row = group[order], row[order]
    return [
        RowPlaces(
            np.zeros(len(group[i : i + micro_rows]), np.int64), group[i : i + micro_rows], row[i : i + micro_rows]
        )
        for i in range(0, len(group), micro_rows)
    ]


def _unknown_shares(manifest: Manifest, names: tuple[str, ...]) -> np.ndarray:
    """[S]: for each of these sources, or one for all sources where no name is given. In a mix, sources of several
    members that have one name count together; their names in the manifest have the member's in front.
    """
    shares = []
    for name in names or ("",):
        own = [s for s in manifest.sources if not names or s.name == name or s.name.partition(": ")[2] == name]
        shares.append(sum(s.unknown_bytes or 0 for s in own) / max(sum(s.num_bytes for s in own), 1))
    return np.array(shares)


def _bits(loss: float, unknown_bytes: float) -> float:
    return loss / math.log(2) + 8 * unknown_bytes


def _of_text(totals: np.ndarray) -> dict[str, float]:
    """totals: (summed loss, targets, bytes, unknown bytes), [4]."""
    loss, _, num_bytes, unknown = totals.tolist()
    return {"val/bits_per_byte": _bits(loss, unknown) / num_bytes} if num_bytes else {}


def _of_blanks(totals: np.ndarray, mixture: Mixture) -> dict[str, float]:
    """totals: (summed loss, targets, bytes, unknown bytes) per objective, [4, O]."""
    loss, targets, num_bytes, unknown = totals.tolist()
    metrics = {}
    total = weight = 0.0
    for index, (name, share) in enumerate(zip(mixture.names, mixture.shares, strict=True)):
        if targets[index]:
            metrics[f"val/loss_{name}"] = loss[index] / targets[index]
            if num_bytes[index]:
                metrics[f"val/bits_per_byte_{name}"] = _bits(loss[index], unknown[index]) / num_bytes[index]
            total += share * metrics[f"val/loss_{name}"]
            weight += share
    if weight:
        metrics["val/loss"] = total / weight
    return metrics


def _plain(names: tuple[str, ...]) -> list[str]:
    """Sources' names as parts of metrics' names, in which MLflow takes letters, digits and _-. only."""
    plain = [re.sub(r"[^\w.-]", "_", name) for name in names]
    return [name if plain.count(name) == 1 else f"{name}_{index}" for index, name in enumerate(plain)]
