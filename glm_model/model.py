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

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glm_model.attention import AttentionMask, Use, attention, make_mask
from glm_model.attention.backends import Backend
from glm_model.cache import Cache
from glm_model.checks import check_fields
from glm_model.config import MORE_POSITIONS, GLMConfig
from glm_model.dropout import dropout
from glm_model.saved.pretrained import Saved

NORM_EPS = 1e-5
INIT_STD = 0.02


class Layer(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x))."""

    def __init__(self, config: GLMConfig):
        super().__init__()
        d = config.width
        self.config = config
        self.attention_norm = nn.LayerNorm(d, eps=NORM_EPS)
        self.qkv = nn.Linear(d, 3 * d)
        self.attention_out = nn.Linear(d, d)
        self.mlp_norm = nn.LayerNorm(d, eps=NORM_EPS)
        self.mlp_in = nn.Linear(d, 4 * d)
        self.mlp_out = nn.Linear(4 * d, d)

    def forward(
        self,
        x_BLD: Tensor,
        mask: AttentionMask,
        cache: Cache | None = None,
        index: int = 0,
        *,
        at: Tensor | None = None,
        compiled: bool = False,
    ) -> Tensor:
        """at: flat positions whose results are wanted, as [M, D]; all others stop at attention. compiled: run what
        comes before and after attention as compiled code.
        """
        before, after = _before_attention, _after_attention if at is None else _after_attention_at
        if compiled:
            before, after = _compiled(before), _compiled(after)
        q_BLHK, k_BLHK, v_BLHK = before(self, x_BLD)
        if cache is not None:
            k_BLHK, v_BLHK = cache.append(index, k_BLHK, v_BLHK)
        attention_p = self.config.attention_dropout if self.training else 0.0
        mixed_BLHK = attention(q_BLHK, k_BLHK, v_BLHK, mask, dropout_p=attention_p)
        if at is not None:
            x_BLD, mixed_BLHK = (part.flatten(0, 1).index_select(0, at) for part in (x_BLD, mixed_BLHK))
        return after(self, x_BLD, mixed_BLHK)


def _before_attention(layer: Layer, x_BLD: Tensor) -> tuple[Tensor, ...]:
    heads = (3, layer.config.heads, layer.config.head_width)
    return layer.qkv(layer.attention_norm(x_BLD)).unflatten(-1, heads).unbind(2)


def _after_attention(layer: Layer, x_BLD: Tensor, mixed_BLHK: Tensor) -> Tensor:
    p = layer.config.dropout if layer.training else 0.0
    x_BLD = x_BLD + dropout(layer.attention_out(mixed_BLHK.flatten(-2)), p)
    hidden = F.gelu(layer.mlp_in(layer.mlp_norm(x_BLD)), approximate="tanh")
    return x_BLD + dropout(layer.mlp_out(hidden), p)


def _after_attention_at(layer: Layer, x_MD: Tensor, mixed_MHK: Tensor) -> Tensor:
    """The same for some positions: compiled apart, for their number changes."""
    return _after_attention(layer, x_MD, mixed_MHK)


@functools.cache
def _compiled(part: Callable) -> Callable:
    """Compiled on first call, once for all layers. Attention stays out: its kernels are not fused with anything, and
    the lengths of segments, which change with every batch, would have it compiled again and again.
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
        """Draw all weights anew from torch's default generator."""
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
        backend: Backend | None = None,
        compiled: bool = False,
        checkpoint_activations: bool = False,
    ) -> Tensor:
        """Final hidden states [B, L, D]; all arguments int64 [B, L].

        segment_ids: index of the segment in its row, -1 on padding; None: each row is one segment.
        context_end: row index one past the context of the position's segment; None: all is context.
        cache: see `Cache`; then a row is one segment, without segment_ids and context_end, and its first counts[b]
        tokens are real (None: all), the rest padding.
        at: flat positions [M]; the result is theirs, [M, D], and the last layer computes little else.
        backend: attention backend; None chooses. With a cache it is always `dense`.
        compiled: run the layers, but for attention, as code compiled on first use: other rounding, other dropout.
        checkpoint_activations: keep each layer's input alone for backward, which computes the layer anew: the same
        gradients, dropout included, for a third more work.
        Raises ValueError on wrong shapes and dtypes, on ids and positions out of range, and on a context that ends
        outside its segment. On a GPU the checks wait for what was queued on it before.
        """
        batch = {"tokens": tokens, "position_ids": position_ids, "block_position_ids": block_position_ids}
        self._check(batch | {"segment_ids": segment_ids, "context_end": context_end}, cache, counts, at)
        if cache is None:
            use = Use(self._compute_dtype(), self.config.head_width, self.config.attention_dropout * self.training)
            shape = (len(tokens), tokens.shape[1])
            mask = make_mask(segment_ids, context_end, shape, tokens.device, backend=backend, use=use)
        else:
            if backend not in (None, "dense"):
                raise ValueError(f"with a cache attention runs by 'dense', not {backend!r}: leave backend out")
            mask = AttentionMask("dense", cache.begin(tokens.shape[1], counts))
        x_BLD = self.token_embedding(tokens) + self.position_embedding(position_ids)
        if self.block_position_embedding is not None:
            x_BLD = x_BLD + self.block_position_embedding(block_position_ids)
        x_BLD = dropout(x_BLD, self.config.dropout if self.training else 0.0)
        again = checkpoint_activations and torch.is_grad_enabled() and cache is None
        for index, layer in enumerate(self.layers):
            options = {"compiled": compiled, "at": at if index == len(self.layers) - 1 else None}
            run = functools.partial(checkpoint, layer, use_reentrant=False) if again else layer
            x_BLD = run(x_BLD, mask, cache, index, **options)
        if cache is not None:
            cache.commit()
        return self.final_norm(x_BLD)

    def _compute_dtype(self) -> torch.dtype:
        """Of matrix products, and so of queries, keys and values."""
        weight = self.token_embedding.weight
        kind = weight.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype

    def logits(self, x_D: Tensor) -> Tensor:
        """[..., D] hidden states -> [..., V], by the transposed token embedding."""
        weight = self.token_embedding.weight
        if _few(x_D, weight):
            # The weights in halves, times one position after the other: the same product, read by all cores. Columns
            # are transposed rows, [D, 1] with strides (1, D): of strides (1, 1) torch makes products that take longer.
            halves, rows = weight.unflatten(0, (2, -1)), x_D.reshape(-1, x_D.shape[-1])
            logits = [torch.bmm(halves, row.T.expand(2, -1, -1)).flatten() for row in rows.split(1)]
            return torch.stack(logits).reshape(*x_D.shape[:-1], -1)
        return F.linear(x_D, weight)

    def num_parameters(self) -> int:
        """Parameters; the tied output layer counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _check(
        self, batch: dict[str, Tensor | None], cache: Cache | None, counts: Sequence[int] | None, at: Tensor | None
    ) -> None:
        required = ("tokens", "position_ids", "block_position_ids")
        if missing := [name for name in required if batch[name] is None]:
            raise ValueError(
                f"{', '.join(missing)} is None; the model takes {', '.join(required)}, each [rows, length]"
            )
        check_fields(batch, like="tokens")
        tokens = batch["tokens"]
        assert tokens is not None
        if tokens.ndim != 2 or 0 in tokens.shape:
            raise ValueError(f"tokens has shape {list(tokens.shape)}; the model takes [rows, length], both at least 1")
        if at is not None:
            check_fields(
                {"at": at}, like="a list of flat positions", shape=[at.numel()] if isinstance(at, Tensor) else []
            )
        if cache is not None:
            _check_cache(cache, batch)
        elif counts is not None:
            raise ValueError("counts go with a cache: without one, mark padding by segment_ids = -1")
        if torch.compiler.is_compiling():
            return
        table = f"Shorten the segments, or use a model with more positions ({MORE_POSITIONS})"
        limits = {
            "tokens": (self.config.vocab_size, "Use the tokenizer that the model was trained with"),
            "position_ids": (self.config.positions + 1, table),
            "block_position_ids": (self.config.positions + 1, table),
        }
        values = [batch[name] for name in limits]
        if at is not None and at.numel():
            limits["at"] = (tokens.numel(), "They are flat: row * length + column")
            values.append(at)
        # Checked on every device: an index out of range on a GPU would end the process without saying which.
        extremes = torch.stack([x for value in values if value is not None for x in torch.aminmax(value)]).tolist()
        for (name, (limit, remedy)), low, high in zip(limits.items(), extremes[::2], extremes[1::2], strict=True):
            if low < 0 or high >= limit:
                bad = low if low < 0 else high
                whose = "this batch has" if name == "at" else "this model takes"
                raise ValueError(f"{name} holds {bad}; {whose} 0 to {limit - 1}. {remedy}")


from_pretrained = GLM.from_pretrained


def _few(x_D: Tensor, weight_VD: Tensor) -> bool:
    """Whether these are the few positions of a step of generation, in fp32 on a CPU: torch's product of a few rows with
    a large matrix runs on one core, at a fifth of what two can read (docs/lab.md).
    """
    few = 0 < x_D.numel() <= 3 * x_D.shape[-1] and len(weight_VD) % 2 == 0
    return few and x_D.device.type == "cpu" and x_D.dtype == weight_VD.dtype == torch.float32


def _check_cache(cache: Cache, batch: dict[str, Tensor | None]) -> None:
    tokens = batch["tokens"]
    assert tokens is not None
    if batch["segment_ids"] is not None or batch["context_end"] is not None:
        raise ValueError("with a cache the row is one segment: leave out segment_ids and context_end")
    if tokens.shape[0] != cache.rows:
        raise ValueError(
            f"tokens has shape {list(tokens.shape)}, and the cache has {cache.rows} rows: make it with the rows and "
            "capacity that you need"
        )
