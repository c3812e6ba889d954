"""Draw the blanks of segments: which objective, which spans, in which order. A pure function of (seed, epoch, segment
id).

The draw depends neither on batch, worker and order nor on how many segments are processed together, so blanks drawn in
advance by Ray Data and blanks drawn in the training worker are the same bytes.
"""

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np

from glm_model.layout import expanded_lengths
from infra.config import dataclass_from
from infra.errors import UserError, nearest
from pipelines import keyed, objectives
from pipelines.blanks import ablations
from pipelines.objectives import SegmentBatch
from pipelines.token_classes import Vocabulary

# Shares and settings by name. Token + document and token + sentence are the paper's multi-task models (section 3.3); it
# does not state the shares: 1:1 is the early GLM-Doc configuration of the authors' repository, 5:3:2 that of GLM-10B.
MIXTURES: dict[str, dict[str, float]] = {
    "glm": {"token": 1.0},
    "glm_doc": {"token": 0.5, "document": 0.5},
    "glm_sent": {"token": 0.5, "sentence": 0.5},
    "glm_multi": {"token": 0.5, "sentence": 0.3, "document": 0.2},
    "gpt": {"document": 1.0},
}
_MIXTURE_SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "gpt": {"document": {"min_ratio": 1.0, "suffix_share": 1.0}},
}
_OBJECTIVE, _KEY = 101, 102  # streams of draws
_MAX_DRAWS = 64


@dataclass
class BlanksConfig:
    mixture: str | dict[str, float] = "glm_multi"
    """A name (glm, glm_doc, glm_sent, glm_multi, gpt) or shares such as {token: 0.6, document: 0.4}; drawn per
    segment.
    """
    mask_tokens: Literal["one", "task", "sentinel"] = "task"
    """One [MASK] for all objectives (the paper); one per task: [MASK], [sMASK], [gMASK] (the authors' later models);
    or, an ablation of the paper, a numbered one per blank.
    """
    order: Literal["random", "left_to_right"] = "random"
    """Order in which the blanks of a segment are predicted. left_to_right: an ablation of the paper."""
    noise: float = 0.0
    """Share of the blanked tokens that the model cannot read while it predicts the next ones (the authors use 0.1 in
    some later models).
    """
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of an objective, by its name: {token: {ratio: 0.15}, document: {min_ratio: 0.5}}."""
    seed: int = 1234
    """Decides what is blanked."""


class Form(NamedTuple):
    """How the blanks of a mixture are shown to the model; the defaults are GLM's."""

    left_to_right: bool = False
    sentinels: bool = False
    noise: float = 0.0
    in_place: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether blanks are laid out as GLM's; their order does not matter."""
        return not (self.sentinels or self.noise or self.in_place)

    @property
    def extra_tokens(self) -> int:
        """Ids behind the tokenizer's own that the model needs."""
        return ablations.extra_tokens(sentinels=self.sentinels, noise=self.noise > 0)


class Mixture(NamedTuple):
    """A resolved mixture: parallel tuples of names, shares (they sum to 1), modules and their settings, and mask
    kinds; and the form of its blanks.
    """

    names: tuple[str, ...]
    shares: tuple[float, ...]
    modules: tuple[ModuleType, ...]
    configs: tuple[Any, ...]
    masks: tuple[str, ...]
    form: Form = Form()


class Blanks(NamedTuple):
    """Blanks of N segments: objective index [N], spans [S, 2] in the order of prediction, span_offsets [N + 1]."""

    objective: np.ndarray
    spans: np.ndarray
    span_offsets: np.ndarray


class RowBatch(NamedTuple):
    """Rows of whole segments: flat tokens, segment offsets [N+1], ids [N], byte counts [N], row_offsets [R+1] into
    segments.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray
    num_bytes: np.ndarray
    row_offsets: np.ndarray


def resolve(config: BlanksConfig) -> Mixture:
    """Find the objectives and check the shares. Raises UserError for unknown names and for shares that do not sum to
    1.
    """
    shares, settings = config.mixture, dict(config.settings)
    if isinstance(shares, str):
        if shares not in MIXTURES:
            raise UserError(
                f"unknown mixture {shares!r}{nearest(shares, MIXTURES)}",
                try_="a name from the list, or shares such as {token: 0.6, document: 0.4}",
            )
        preset = _MIXTURE_SETTINGS.get(shares, {})
        settings = {name: preset.get(name, {}) | settings.get(name, {}) for name in {*preset, *settings}}
        shares = MIXTURES[shares]
    if negative := [name for name, share in shares.items() if share < 0]:
        raise UserError(f"blanks.mixture gives {negative[0]} a share of {shares[negative[0]]:g}, which is below 0")
    total = sum(shares.values())
    if not abs(total - 1) <= 1e-6:  # nan is not either
        raise UserError(
            f"blanks.mixture {shares} sums to {total:g}, not to 1", try_="give each objective its share of the segments"
        )
    if unused := set(settings) - set(shares):
        raise UserError(
            f"blanks.settings has {', '.join(sorted(unused))}, which the mixture does not use",
            try_=f"settings of: {', '.join(shares)}",
        )
    modules = tuple(objectives.find(name) for name in shares)
    configs = tuple(
        dataclass_from(module.Config, settings.get(name, {}), where=f"in blanks.settings.{name}")
        for name, module in zip(shares, modules, strict=True)
    )
    masks = tuple(module.MASK if config.mask_tokens == "task" else "mask" for module in modules)
    return Mixture(tuple(shares), tuple(shares.values()), modules, configs, masks, _form(config, modules))


def draw(
    mixture: Mixture, rows: RowBatch, vocabulary: Vocabulary, *, seed: int, epoch: int, attempt: int | np.ndarray = 0
) -> Blanks:
    """The blanks of every segment of `rows`. `attempt` (a number, or one per segment) selects an independent redraw."""
    base = keyed.fold(seed, epoch)[0]
    keys = keyed.fold(base, attempt, rows.ids)
    choice = keyed.unit(keyed.bits(keys, 1, stream=_OBJECTIVE)[:, 0])
    objective = np.minimum(np.searchsorted(np.cumsum(mixture.shares), choice, side="right"), len(mixture.names) - 1)
    keys = keyed.mix(keys + np.uint64(_KEY))
    parts = []
    for index, (module, config) in enumerate(zip(mixture.modules, mixture.configs, strict=True)):
        members = np.flatnonzero(objective == index)
        if len(members) == len(keys):
            batch = SegmentBatch(rows.tokens, rows.offsets, keys, vocabulary)
        else:
            tokens, offsets = take_ragged(rows.tokens, rows.offsets, members)
            batch = SegmentBatch(tokens, offsets, keys[members], vocabulary)
        if len(members):
            parts.append((members, *module.spans(batch, config)))
    spans, span_offsets = _merge(parts, len(keys))
    if mixture.form.left_to_right:
        segment = np.repeat(np.arange(len(keys)), np.diff(span_offsets))
        spans = spans[np.lexsort((spans[:, 0], segment))]
    return Blanks(objective.astype(np.uint8), spans, span_offsets)


def draw_rows(
    mixture: Mixture, rows: RowBatch, vocabulary: Vocabulary, *, seed: int, epoch: int, width: int
) -> tuple[Blanks, np.ndarray]:
    """Blanks whose expansion fits each row in `width` positions, and the number of redraws of each row [R] (0 nearly
    always).

    Rows are filled with a reserve of six standard deviations (`pipelines.store.packing`); one that overflows all the
    same has all its segments drawn again with the next attempt number, a rule on that row alone. Raises UserError when
    the rows were packed for a mixture that expands less.
    """
    blanks = draw(mixture, rows, vocabulary, seed=seed, epoch=epoch)
    redraws = np.zeros(len(rows.row_offsets) - 1, np.int64)
    for attempt in range(1, _MAX_DRAWS):
        sizes = positions(rows, blanks, mixture)
        filled = np.add.reduceat(sizes, rows.row_offsets[:-1]) if len(sizes) else np.zeros(0)
        over = np.flatnonzero(filled > width)
        if len(over) == 0:
            return blanks, redraws
        redraws[over] = attempt
        attempts = np.repeat(redraws, np.diff(rows.row_offsets))
        blanks = draw(mixture, rows, vocabulary, seed=seed, epoch=epoch, attempt=attempts)
    raise UserError(
        f"the blanks of a row need more than its {width} positions, {_MAX_DRAWS} times in a row",
        why="the store was packed for a mixture that expands less",
        try_="prepare it again with this mixture: python workflows/prepare.py --config <recipe>",
    )


def positions(rows: RowBatch, blanks: Blanks, mixture: Mixture) -> np.ndarray:
    """Positions that each segment takes once laid out, [N]."""
    return np.diff(rows.offsets) if mixture.form.in_place else expanded_lengths(rows.offsets, blanks.span_offsets)


def moments(mixture: Mixture, rows: RowBatch, vocabulary: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """(mean, variance) of the positions that each segment takes once laid out, [N], over the draws of the mixture."""
    batch = SegmentBatch(rows.tokens, rows.offsets, rows.ids, vocabulary)
    if mixture.form.in_place:
        return batch.lengths.astype(np.float64), np.zeros(len(batch))
    mean, square = np.zeros(len(batch)), np.zeros(len(batch))
    for module, config, share in zip(mixture.modules, mixture.configs, mixture.shares, strict=True):
        first, variance = module.blank_moments(batch, config)
        mean += share * first
        square += share * (variance + first**2)
    return batch.lengths + 2 * mean, 4 * np.maximum(square - mean**2, 0)


def concatenate_rows(parts: list[RowBatch]) -> RowBatch:
    """The rows of several batches, one after the other."""
    return RowBatch(
        np.concatenate([part.tokens for part in parts]),
        join_offsets([part.offsets for part in parts]),
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.num_bytes for part in parts]),
        join_offsets([part.row_offsets for part in parts]),
    )


def join_offsets(parts: list[np.ndarray]) -> np.ndarray:
    """Offsets of a concatenation of ragged arrays, each given by its own offsets from 0."""
    sizes = np.concatenate([np.diff(part) for part in parts])
    return np.concatenate(([0], np.cumsum(sizes)))


def take_ragged(flat: np.ndarray, offsets: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The members' slices of a ragged array, concatenated, and their offsets."""
    sizes = np.diff(offsets)[members]
    new = np.concatenate(([0], np.cumsum(sizes)))
    index = np.repeat(offsets[:-1][members] - new[:-1], sizes) + np.arange(new[-1])
    return flat[index], new


def _form(config: BlanksConfig, modules: tuple[ModuleType, ...]) -> Form:
    in_place = [module for module in modules if getattr(module, "IN_PLACE", False)]
    if in_place and len(modules) > 1:
        raise UserError(
            f"{in_place[0].__name__.rpartition('.')[2]} cannot be mixed with other objectives",
            why="it predicts tokens in place, and the others append their blanks",
            try_="blanks.mixture={masked_lm: 1.0}",
        )
    if not 0 <= config.noise < 1:
        raise UserError(f"blanks.noise={config.noise:g} is outside [0, 1)", try_="the authors use 0.1")
    return Form(config.order == "left_to_right", config.mask_tokens == "sentinel", config.noise, bool(in_place))


def _merge(parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Spans and offsets in segment order out of (members, spans, offsets) of each objective."""
    if len(parts) == 1:  # it has all segments
        return parts[0][1:]
    count = np.zeros(n, np.int64)
    for members, _, offsets in parts:
        count[members] = np.diff(offsets)
    span_offsets = np.concatenate(([0], np.cumsum(count)))
    spans = np.empty((int(span_offsets[-1]), 2), np.int64)
    for members, values, offsets in parts:
        sizes = np.diff(offsets)
        spans[np.repeat(span_offsets[:-1][members] - offsets[:-1], sizes) + np.arange(len(values))] = values
    return spans, span_offsets
