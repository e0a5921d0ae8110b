"""Embeddings with int8 rows, each with a scale of its own."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyquant.dynamic.packing import DynamicModule, quantize_rows
from pyquant.errors import QuantizationError


class DynamicEmbedding(DynamicModule):
    """``nn.Embedding`` with int8 rows; the rows that are looked up become float32.

    Buffers: ``weight`` int8 ``[N, D]``, ``scales`` float32 ``[N]``.
    """

    float_type: ClassVar[type[nn.Module]] = nn.Embedding
    weight: Tensor
    scales: Tensor

    def __init__(self, module: nn.Embedding | nn.EmbeddingBag) -> None:
        super().__init__()
        if module.max_norm is not None:
            raise QuantizationError("max_norm changes the weights at every call")
        values, scales = quantize_rows(module.weight)
        self.register_buffer("weight", values)
        self.register_buffer("scales", scales)
        self.num_embeddings, self.embedding_dim = module.num_embeddings, module.embedding_dim
        self.padding_idx = module.padding_idx

    @classmethod
    def from_float(cls, module: nn.Embedding | nn.EmbeddingBag) -> DynamicEmbedding:
        """The same table in int8."""
        return cls(module)

    def forward(self, input: Tensor) -> Tensor:
        """Indices ``[...]`` to float32 ``[..., D]``."""
        return self.weight[input] * self.scales[input].unsqueeze(-1)

    def extra_repr(self) -> str:
        """For ``print``."""
        return f"{self.num_embeddings}, {self.embedding_dim}"


class DynamicEmbeddingBag(DynamicEmbedding):
    """``nn.EmbeddingBag`` with int8 rows."""

    float_type = nn.EmbeddingBag

    def __init__(self, module: nn.EmbeddingBag) -> None:
        super().__init__(module)
        self.mode, self.include_last_offset = module.mode, module.include_last_offset

    def forward(
        self,
        input: Tensor,
        offsets: Tensor | None = None,
        per_sample_weights: Tensor | None = None,
    ) -> Tensor:
        """As the float module: bags ``[B, N]``, or ``[N]`` with ``offsets``, to ``[B, D]``."""
        flat = input.flatten()
        rows = self.weight[flat] * self.scales[flat].unsqueeze(-1)
        # Of the rows that this call needs every one is its own entry of a small table; entries to
        # be left out are the last row of it.
        entries = torch.arange(len(flat), dtype=input.dtype, device=input.device)
        padding = None
        if self.padding_idx is not None:
            padding = len(flat)
            rows = torch.cat([rows, rows.new_zeros(1, self.embedding_dim)])
            entries = entries.masked_fill(flat == self.padding_idx, padding)
        return functional.embedding_bag(
            entries.reshape(input.shape),
            rows,
            offsets,
            mode=self.mode,
            per_sample_weights=per_sample_weights,
            include_last_offset=self.include_last_offset,
            padding_idx=padding,
        )
