"""Multi-head attention: the four projections in int8, the attention itself in float32."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyquant.dynamic.linear import DynamicLinear
from pyquant.dynamic.packing import DynamicModule
from pyquant.errors import InvalidInputError


class DynamicMultiheadAttention(DynamicModule):
    """``nn.MultiheadAttention`` with int8 projections, without dropout."""

    float_type = nn.MultiheadAttention
    #: What nn.TransformerEncoderLayer looks at to see that it has to call the module.
    in_proj_bias = None
    bias_k: Tensor | None
    bias_v: Tensor | None

    def __init__(self, module: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = module.embed_dim, module.num_heads
        self.head_dim = module.head_dim
        self.batch_first, self.add_zero_attn = module.batch_first, module.add_zero_attn
        if module.in_proj_weight is None:
            weights = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
        else:
            weights = list(module.in_proj_weight.chunk(3))
        bias = module.in_proj_bias
        biases = [None] * 3 if bias is None else list(bias.chunk(3))
        self.q_proj, self.k_proj, self.v_proj = map(DynamicLinear, weights, biases)
        self.out_proj = DynamicLinear(module.out_proj.weight, module.out_proj.bias)
        for name in ("bias_k", "bias_v"):
            value = getattr(module, name)
            self.register_buffer(name, None if value is None else value.detach().clone())

    @classmethod
    def from_float(cls, module: nn.MultiheadAttention) -> DynamicMultiheadAttention:
        """The same layer with int8 projections."""
        return cls(module)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As the float module; ``is_causal`` needs ``attn_mask`` there, and here.

        Raises:
            InvalidInputError: A wrong shape, or no dense floating tensor on the CPU.
        """
        if is_causal and attn_mask is None:
            raise InvalidInputError("is_causal is a hint: it needs the attn_mask, too")
        single = query.dim() == 2
        if single:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        k, v = self.k_proj(key), self.v_proj(value)
        heads = self._split(self.q_proj(query))
        k, v, extra = self._extended(k, v)
        mask = self._mask(key_padding_mask, attn_mask, heads, extra)
        if need_weights:
            scores = heads @ k.transpose(-2, -1) / math.sqrt(self.head_dim)
            weights = torch.softmax(scores if mask is None else scores + mask, -1)
            attended = weights @ v
        else:
            weights = None
            attended = functional.scaled_dot_product_attention(heads, k, v, attn_mask=mask)
        y = self.out_proj(attended.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if single:
            return y.squeeze(0), None if weights is None else weights.squeeze(0)
        return y if self.batch_first else y.transpose(0, 1), weights

    def _split(self, x: Tensor) -> Tensor:
        """``[B, L, E]`` to ``[B, heads, L, E / heads]``."""
        heads = x.reshape(*x.shape[:-1], self.num_heads, self.head_dim)
        return heads.transpose(1, 2)

    def _extended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int]:
        """Keys and values of each head, and how many were appended to those given."""
        length, batch = k.shape[1], k.shape[0]
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.to(k.dtype).expand(batch, -1, -1)], 1)
            v = torch.cat([v, self.bias_v.to(v.dtype).expand(batch, -1, -1)], 1)
        if self.add_zero_attn:
            k, v = (functional.pad(x, (0, 0, 0, 1)) for x in (k, v))
        return self._split(k), self._split(v), k.shape[1] - length

    def _mask(
        self,
        key_padding_mask: Tensor | None,
        attn_mask: Tensor | None,
        heads: Tensor,
        extra: int,
    ) -> Tensor | None:
        """Both masks as numbers to add to scores ``[B, heads, L, S]``."""
        batch = heads.shape[0]
        parts = []
        if attn_mask is not None:
            each = (batch, self.num_heads) if attn_mask.dim() == 3 else ()
            parts.append(attn_mask.reshape(*each, *attn_mask.shape[-2:]))
        if key_padding_mask is not None:
            parts.append(key_padding_mask.reshape(batch, 1, 1, -1))
        total: Tensor | None = None
        for part in parts:
            if part.dtype == torch.bool:
                part = heads.new_zeros(part.shape).masked_fill(part, -math.inf)
            part = functional.pad(part.to(heads.dtype), (0, extra))
            total = part if total is None else total + part
        return total

    def extra_repr(self) -> str:
        """For ``print``."""
        return f"{self.embed_dim}, num_heads={self.num_heads}"
