"""The mixture of objectives that a recipe names, and what it resolves to: objectives, shares, form."""

from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, NamedTuple

from infra.config import dataclass_from
from infra.errors import UserError, nearest
from pipelines import objectives
from pipelines.blanks import ablations
from pipelines.blanks.form import Form

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


@dataclass
class BlanksConfig:
    mixture: str | dict[str, float] = "glm_multi"
    """A name (glm, glm_doc, glm_sent, glm_multi, gpt) or shares of segments such as {token: 0.6, document: 0.4}."""
    mask_tokens: Literal["one", "task", "sentinel"] = "task"
    """One [MASK] for all objectives (the paper); one per task: [MASK], [sMASK], [gMASK] (the authors' later models);
    or, an ablation of the paper, a numbered one per blank.
    """
    order: Literal["random", "left_to_right"] = "random"
    """Order in which the blanks of a segment are predicted. left_to_right: an ablation of the paper."""
    noise: float = 0.0
    """Share of the blanked tokens that the model cannot read while it predicts the next ones. The authors use 0.1 in
    some later models.
    """
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of an objective, by its name: {token: {ratio: 0.15}, document: {min_ratio: 0.5}}."""
    seed: int = 1234
    """Decides what is blanked."""


class Mixture(NamedTuple):
    """A resolved mixture: parallel tuples of names, shares (they sum to 1), modules, their settings and mask kinds.

    left_to_right: blanks are predicted in the order of the text; form: what is made of a segment and its blanks.
    """

    names: tuple[str, ...]
    shares: tuple[float, ...]
    modules: tuple[ModuleType, ...]
    configs: tuple[Any, ...]
    masks: tuple[str, ...]
    left_to_right: bool = False
    form: Form = Form()


def resolve(config: BlanksConfig) -> Mixture:
    """Find the objectives and check the shares.

    Raises UserError for unknown names, for shares that do not sum to 1, and for what cannot be combined.
    """
    shares, settings = config.mixture, dict(config.settings)
    if isinstance(shares, str):
        if shares not in MIXTURES:
            raise UserError(
                f"unknown mixture {shares!r}{nearest(shares, MIXTURES)}",
                try_=f"use one of {', '.join(MIXTURES)}, or shares such as {{token: 0.6, document: 0.4}}",
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
            try_=f"give settings of {', '.join(shares)} only",
        )
    modules = tuple(objectives.find(name) for name in shares)
    configs = tuple(
        dataclass_from(module.Config, settings.get(name, {}), where=f"in blanks.settings.{name}")
        for name, module in zip(shares, modules, strict=True)
    )
    masks = tuple(module.MASK if config.mask_tokens == "task" else "mask" for module in modules)
    left_to_right, form = config.order == "left_to_right", _form(config, modules, configs)
    return Mixture(tuple(shares), tuple(shares.values()), modules, configs, masks, left_to_right, form)


def _form(config: BlanksConfig, modules: tuple[ModuleType, ...], configs: tuple[Any, ...]) -> Form:
    in_place = [module for module in modules if getattr(module, "IN_PLACE", False)]
    if in_place and len(modules) > 1:
        raise UserError(
            f"{in_place[0].__name__.rpartition('.')[2]} cannot be mixed with other objectives",
            why="it predicts tokens in place, and the others append their blanks",
            try_="--blanks.mixture='{masked_lm: 1.0}'",
        )
    if not 0 <= config.noise < 1:
        raise UserError(f"blanks.noise={config.noise:g} is outside [0, 1)", try_="--blanks.noise=0.1, as the authors")
    sentinels, noise = config.mask_tokens == "sentinel", config.noise
    extra = ablations.extra_tokens(sentinels=sentinels, noise=noise > 0)
    if in_place:
        return ablations.InPlace(extra, configs[0].random_share, configs[0].kept_share)
    return ablations.AlteredInputs(extra, sentinels, noise) if extra else Form()
