"""The step as GLM's original training did it by its papers' description, as plain torch: what ours is compared with.

One segment per row, a dense mask [B, 1, T, T] multiplied into the scores with 65,504 taken from what it hides,
attention by two matrix products and a softmax, every layer computed again in backward, logits of all positions. The
weights are those of a `GLM`, so that losses can be compared.

Shapes: B rows, T positions, D width, H heads, K head width, V vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glm_model.model import GLM, Layer

HIDDEN = 65_504.0  # the largest float16


class OriginalStyle(nn.Module):
    """batch of one segment per row -> mean loss over its blanks."""

    def __init__(self, model: GLM, *, checkpoint_activations: bool = True):
        super().__init__()
        self.model = model
        self.checkpoint_activations = checkpoint_activations

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        model, p = self.model, self._dropout()
        x_BTD = model.token_embedding(batch["tokens"]) + model.position_embedding(batch["position_ids"])
        if model.block_position_embedding is not None:
            x_BTD = x_BTD + model.block_position_embedding(batch["block_position_ids"])
        x_BTD = F.dropout(x_BTD, p, self.training)
        mask_B1TT = dense_mask(batch["context_end"][:, 0], x_BTD.shape[1]).to(x_BTD.dtype)
        for layer in model.layers:
            if self.checkpoint_activations and torch.is_grad_enabled():
                x_BTD = checkpoint(self._layer, layer, x_BTD, mask_B1TT, use_reentrant=False)
            else:
                x_BTD = self._layer(layer, x_BTD, mask_B1TT)
        logits_BTV = F.linear(model.final_norm(x_BTD), model.token_embedding.weight).float()
        losses = F.cross_entropy(logits_BTV.flatten(0, 1), batch["targets"].flatten(), reduction="none")
        weight = batch["loss_mask"].flatten().float()
        return (losses * weight).sum() / weight.sum()

    def _layer(self, layer: Layer, x_BTD: Tensor, mask_B1TT: Tensor) -> Tensor:
        config, p = layer.config, self._dropout()
        heads = (3, config.heads, config.head_width)
        qkv = layer.qkv(layer.attention_norm(x_BTD)).unflatten(-1, heads).permute(2, 0, 3, 1, 4)
        q_BHTK, k_BHTK, v_BHTK = (part.contiguous() for part in qkv.unbind(0))
        scores_BHTT = q_BHTK @ (k_BHTK / config.head_width**0.5).transpose(2, 3)
        scores_BHTT = scores_BHTT * mask_B1TT - HIDDEN * (1.0 - mask_B1TT)
        weights_BHTT = F.dropout(scores_BHTT.softmax(-1), config.attention_dropout, self.training)
        mixed_BTD = (weights_BHTT.to(v_BHTK.dtype) @ v_BHTK).transpose(1, 2).flatten(2)
        x_BTD = x_BTD + F.dropout(layer.attention_out(mixed_BTD), p, self.training)
        hidden = F.gelu(layer.mlp_in(layer.mlp_norm(x_BTD)), approximate="tanh")
        return x_BTD + F.dropout(layer.mlp_out(hidden), p, self.training)

    def _dropout(self) -> float:
        return self.model.config.dropout


def dense_mask(context_B: Tensor, length: int) -> Tensor:
    """float [B, 1, T, T]: 1 where the key is context or not after the query."""
    place = torch.arange(length, device=context_B.device)
    causal = torch.ones(length, length, device=context_B.device).tril()
    context = (place < context_B[:, None]).float()
    return torch.maximum(causal[None], context[:, None, :])[:, None]
