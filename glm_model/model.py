"""The GLM Transformer (Du et al., ACL 2022, section 2.2): pre-LN, two learned position tables, tied output layer.

Shapes: B rows, L row length, D width, H heads, K head width, V vocabulary (padded).
Weights (`state_dict`), i = 0 .. layers - 1:
  token_embedding.weight [V, D]: also the output layer, without bias
  position_embedding.weight, block_position_embedding.weight [positions + 1, D]
  layers.i.attention_norm, layers.i.qkv [3D, D] (rows: all Q, K, V), layers.i.attention_out [D, D]: .weight, .bias
  layers.i.mlp_norm, layers.i.mlp_in [4D, D], layers.i.mlp_out [D, 4D], final_norm: .weight, .bias
`glm_model.saved.authors_checkpoint` translates the authors' names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glm_model.attention import AttentionMask, Use, attention, make_mask
from glm_model.attention.backends import Backend
from glm_model.attention.packed_rows import Runs
from glm_model.cache import Cache
from glm_model.checks import Range, check_fields, check_ranges
from glm_model.config import MORE_POSITIONS, GLMConfig
from glm_model.dropout import dropout
from glm_model.products import Linear, linear, wide_linear
from glm_model.saved.pretrained import Saved

NORM_EPS = 1e-5
INIT_STD = 0.02
_PIECE = 512  # positions; 256 and 1,024 are as fast


@dataclass(frozen=True)
class Execution:
    """How the layers are computed. It changes the time and the memory that they take, and their rounding."""

    backend: Backend | None = None
    """The attention backend; None chooses one. With a cache it is always `dense`, in groups of rows."""
    compiled: bool = False
    """Run the layers, but for attention, as code that is compiled on first use. Its dropout draws other numbers."""
    checkpoint_activations: bool = False
    """Keep only each layer's input for backward, which computes the layer again: the same gradients, dropout included,
    for a third more work.
    """


class Layer(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x))."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        d = config.width
        self.config = config
        self.attention_norm = nn.LayerNorm(d, eps=NORM_EPS)
        self.qkv = Linear(d, 3 * d)
        self.attention_out = Linear(d, d)
        self.mlp_norm = nn.LayerNorm(d, eps=NORM_EPS)
        self.mlp_in = Linear(d, 4 * d)
        self.mlp_out = Linear(4 * d, d)

    def forward(
        self,
        x_BLD: Tensor,
        mask: AttentionMask | None,
        cache: Cache | None = None,
        index: int = 0,
        *,
        at: Tensor | None = None,
        compiled: bool = False,
    ) -> Tensor:
        """at: flat positions whose results are wanted, as [M, D]; the others stop at attention. With a cache there are
        none, and it gets its keys and values. compiled: run what comes before and after attention as compiled code.
        """
        if cache is not None and at is not None:
            cache.store(index, *_keys_and_values(self, x_BLD))
            return x_BLD.new_empty(0, x_BLD.shape[-1])
        before, after = _before_attention, _after_attention if at is None else _after_attention_at
        if compiled:
            before, after = _compiled(before), _compiled(after)
        q_BLHK, k_BLHK, v_BLHK = before(self, x_BLD)
        attention_p = self.config.attention_dropout if self.training else 0.0
        if cache is not None:
            mixed_BLHK = cache.attend(index, q_BLHK, k_BLHK, v_BLHK, dropout_p=attention_p)
        else:
            assert mask is not None, "without a cache a mask says who sees whom"
            mixed_BLHK = attention(q_BLHK, k_BLHK, v_BLHK, mask, dropout_p=attention_p)
        if at is not None:
            x_BLD, mixed_BLHK = (part.flatten(0, 1).index_select(0, at) for part in (x_BLD, mixed_BLHK))
        elif x_BLD.is_cpu and not compiled and len(x_BLD) * x_BLD.shape[1] > _PIECE and not torch.is_grad_enabled():
            after = _in_pieces
        return after(self, x_BLD, mixed_BLHK)


def _before_attention(layer: Layer, x_BLD: Tensor) -> tuple[Tensor, ...]:
    heads = (3, layer.config.heads, layer.config.head_width)
    return layer.qkv(layer.attention_norm(x_BLD)).unflatten(-1, heads).unbind(2)


def _in_pieces(layer: Layer, x_BLD: Tensor, mixed_BLHK: Tensor) -> Tensor:
    """`_after_attention` of a few positions at a time, which do not leave the cache of a core."""
    pieces = zip(x_BLD.flatten(0, -2).split(_PIECE), mixed_BLHK.flatten(0, -3).split(_PIECE), strict=True)
    return torch.cat([_after_attention(layer, *piece) for piece in pieces]).view(x_BLD.shape)


def _keys_and_values(layer: Layer, x_BLD: Tensor) -> tuple[Tensor, ...]:
    """What `_before_attention` gives without the queries."""
    d, heads = layer.config.width, (2, layer.config.heads, layer.config.head_width)
    keys_and_values = linear(layer.attention_norm(x_BLD), layer.qkv.weight[d:], layer.qkv.bias[d:])
    return keys_and_values.unflatten(-1, heads).unbind(2)


def _after_attention(layer: Layer, x_BLD: Tensor, mixed_BLHK: Tensor) -> Tensor:
    p = layer.config.dropout if layer.training else 0.0
    x_BLD = x_BLD + dropout(layer.attention_out(mixed_BLHK.flatten(-2)), p)
    hidden = F.gelu(layer.mlp_in(layer.mlp_norm(x_BLD)), approximate="tanh")
    return x_BLD + dropout(layer.mlp_out(hidden), p)


def _after_attention_at(layer: Layer, x_MD: Tensor, mixed_MHK: Tensor) -> Tensor:
    """The same for some positions. A function of its own, to be compiled apart: their number changes."""
    return _after_attention(layer, x_MD, mixed_MHK)


@functools.cache
def _compiled(part: Callable) -> Callable:
    """`part` as code that is compiled on its first call, once for all layers. Attention is never part of it: its
    kernels are not fused with anything, and the lengths of segments, which change with every batch, would have it
    compiled again and again.
    """
    return torch.compile(part)


class GLM(Saved):
    """A GLM of a given shape, freshly initialised: N(0, 0.02), output projections N(0, 0.02 / sqrt(2 * layers))."""

    def __init__(self, config: GLMConfig):
        super().__init__(config)
        rows = config.positions + 1
        self.token_embedding = nn.Embedding(config.vocab_size, config.width)
        self.position_embedding = nn.Embedding(rows, config.width)
        self.block_position_embedding = nn.Embedding(rows, config.width) if config.block_positions else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw all weights from torch's default generator."""
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith(".bias"):
                parameter.zero_()
            else:
                projection = name.endswith(("attention_out.weight", "mlp_out.weight"))
                parameter.normal_(0.0, INIT_STD / (2 * self.config.layers) ** 0.5 if projection else INIT_STD)

    def forward(
        self,
        tokens: Tensor,
        position_ids: Tensor,
        block_position_ids: Tensor,
        segment_ids: Tensor | None = None,
        context_end: Tensor | None = None,
    ) -> Tensor:
        """Logits [B, L, V] of the token at every position of a batch. Arguments as for `hidden`."""
        return self.logits(self.hidden(tokens, position_ids, block_position_ids, segment_ids, context_end))

    def hidden(
        self,
        tokens: Tensor,
        position_ids: Tensor,
        block_position_ids: Tensor,
        segment_ids: Tensor | None = None,
        context_end: Tensor | None = None,
        *,
        cache: Cache | None = None,
        counts: Sequence[int] | None = None,
        at: Tensor | None = None,
        execution: Execution = Execution(),
        runs: Runs | None = None,
    ) -> Tensor:
        """Final hidden states [B, L, D]. All arguments are int64 [B, L].

        segment_ids: index of the segment in its row, -1 on padding. None: each row is one segment.
        context_end: row index one past the context of the position's segment. None: everything is context.
        cache: see `Cache`. A row is then one segment, without segment_ids and context_end, and its first counts[b]
        tokens are real (None: all of them), the rest padding, which costs nothing and whose states are 0.
        at: flat positions [M] (row * L + column). The result is theirs, [M, D]; the last layer computes little else
        (with a cache, where M is 0).
        runs: of a batch whose values the host has checked (`glm_model.outline`): they are not checked here.
        Raises ValueError on wrong shapes and dtypes, on ids and positions out of range, and on a context that ends
        outside its segment. On a GPU the checks of values wait for the work that was queued before.
        """
        batch = {"tokens": tokens, "position_ids": position_ids, "block_position_ids": block_position_ids}
        _check(batch | {"segment_ids": segment_ids, "context_end": context_end}, cache, counts, at)
        if runs is None and not torch.compiler.is_compiling():
            _check_values(self.config, batch, at)
        mask, real = None, None
        if cache is None:
            use = Use(self._compute_dtype(), self.config.head_width, self.config.attention_dropout * self.training)
            shape = (len(tokens), tokens.shape[1])
            chosen = execution.backend
            mask = make_mask(segment_ids, context_end, shape, tokens.device, backend=chosen, use=use, runs=runs)
        else:
            if execution.backend not in (None, "dense"):
                chosen = execution.backend
                raise ValueError(f"with a cache attention runs by 'dense', not {chosen!r}: leave backend out")
            real = cache.begin(tokens.shape[1], counts)
        ids = (tokens, position_ids, block_position_ids)
        x_BLD = self._embedded(*(ids if real is None else (part.flatten()[real][None] for part in ids)))
        nothing = at is not None and at.numel() == 0
        again = execution.checkpoint_activations and torch.is_grad_enabled() and cache is None
        for index, layer in enumerate(self.layers):
            wanted = at if index == len(self.layers) - 1 and (cache is None or nothing) else None
            options = {"compiled": execution.compiled, "at": wanted}
            run = functools.partial(checkpoint, layer, use_reentrant=False) if again else layer
            x_BLD = run(x_BLD, mask, cache, index, **options)
        x_BLD = self.final_norm(x_BLD)
        if cache is None:
            return x_BLD
        cache.commit()
        if nothing:
            return x_BLD
        if real is not None:  # the layers computed the real positions alone
            x_BLD = x_BLD.new_zeros(tokens.numel(), x_BLD.shape[-1]).index_copy_(0, real, x_BLD[0])
        x_BLD = x_BLD.view(*tokens.shape, -1)
        return x_BLD if at is None else x_BLD.flatten(0, 1).index_select(0, at)

    def logits(self, x_D: Tensor) -> Tensor:
        """[..., D] hidden states -> [..., V], by the transposed token embedding."""
        return wide_linear(x_D, self.token_embedding.weight)

    def _embedded(self, tokens: Tensor, position_ids: Tensor, block_position_ids: Tensor) -> Tensor:
        x_BLD = self.token_embedding(tokens) + self.position_embedding(position_ids)
        if self.block_position_embedding is not None:
            x_BLD = x_BLD + self.block_position_embedding(block_position_ids)
        return dropout(x_BLD, self.config.dropout if self.training else 0.0)

    def _compute_dtype(self) -> torch.dtype:
        """The dtype of matrix products, and so of queries, keys and values."""
        weight = self.token_embedding.weight
        kind = weight.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype

    def num_parameters(self) -> int:
        """Parameters; the tied output layer counts once."""
        return sum(parameter.numel() for parameter in self.parameters())


from_pretrained = GLM.from_pretrained


def _check(
    batch: dict[str, Tensor | None],
    cache: Cache | None,
    counts: Sequence[int] | None,
    at: Tensor | None,
) -> None:
    required = ("tokens", "position_ids", "block_position_ids")
    if missing := [name for name in required if batch[name] is None]:
        raise ValueError(f"{', '.join(missing)} is None: expected {', '.join(required)}, each [rows, length]")
    check_fields(batch, like="tokens")
    tokens = batch["tokens"]
    assert tokens is not None
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise ValueError(f"tokens has shape {list(tokens.shape)}: expected [rows, length], both at least 1")
    if at is not None:
        shape = [at.numel()] if isinstance(at, Tensor) else []
        check_fields({"at": at}, like="a list of flat positions", shape=shape)
    if cache is not None:
        _check_cache(cache, batch)
    elif counts is not None:
        raise ValueError("counts go with a cache: without one, mark padding by segment_ids = -1")


def _check_values(config: GLMConfig, batch: dict[str, Tensor], at: Tensor | None) -> None:
    shorter = f"Shorten the segments, or use a model with more positions ({MORE_POSITIONS})"
    limits = {
        "tokens": (config.vocab_size, "Use the tokenizer that the model was trained with"),
        "position_ids": (config.positions + 1, shorter),
        "block_position_ids": (config.positions + 1, shorter),
    }
    ranges = {name: Range(values, *limits[name]) for name, values in batch.items()}
    if at is not None:
        ranges["at"] = Range(at, batch["tokens"].numel(), "Positions are flat: row * length + column")
    check_ranges(ranges)


def _check_cache(cache: Cache, batch: dict[str, Tensor | None]) -> None:
    tokens = batch["tokens"]
    assert tokens is not None
    if batch["segment_ids"] is not None or batch["context_end"] is not None:
        raise ValueError("with a cache the row is one segment: leave out segment_ids and context_end")
    if tokens.shape[0] != cache.rows:
        raise ValueError(
            f"tokens has shape {list(tokens.shape)}, and the cache has {cache.rows} rows: make the cache with the rows "
            "and the capacity that you need"
        )
