"""Linear maps of a block, in 16 bits or in 8."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from mosaic_core.kernels.feed_forward.swiglu import swiglu
from mosaic_core.kernels.projections.int8 import (
    int8_linear,
    int8_swiglu,
    quantise_rows,
)
from mosaic_core.kernels.projections.rms import inverse_rms


class Linears(Protocol):
    """The four maps of a block; x is the residual stream, (batch, token, dim)."""

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """q, k, v and gates, padded, (batch, token, width), and the factor of each row."""

    def hidden(self, x: Tensor, shift: Tensor | None) -> Tensor:
        """SwiGLU of the normalised x, (batch, token, hidden)."""

    def add_attention(self, x: Tensor, mixed: Tensor) -> None:
        """x += Wo mixed."""

    def add_hidden(self, x: Tensor, hidden: Tensor) -> None:
        """x += W2 hidden."""


_HEADROOM = 16.0
"""Products are stored before the norm's factor: a power of two less, lest float16 overflows."""


class Dense:
    """Products in the type of the weights, sums in float32 (cuBLAS)."""

    def __init__(self, qkvg: Tensor, out: Tensor, w13: Tensor, w2: Tensor) -> None:
        self.qkvg, self.out, self.w13, self.w2 = qkvg / _HEADROOM, out, w13, w2

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.linear(x, self.qkvg), inverse_rms(x) * _HEADROOM

    def hidden(self, x: Tensor, shift: Tensor | None) -> Tensor:
        return swiglu(x, inverse_rms(x), self.w13, shift)

    def add_attention(self, x: Tensor, mixed: Tensor) -> None:
        _add_product(x, mixed, self.out)

    def add_hidden(self, x: Tensor, hidden: Tensor) -> None:
        _add_product(x, hidden, self.w2)


class Int8:
    """Weights in 8 bits with a scale an output, rows of the input in 8 bits with a scale each.

    The scale of a row absorbs its norm.
    """

    def __init__(self, qkvg: Tensor, out: Tensor, w13: Tensor, w2: Tensor) -> None:
        self.qkvg, self.out = quantise_rows(qkvg), quantise_rows(out)
        self.w13, self.w2 = quantise_rows(w13), quantise_rows(w2)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, scale = quantise_rows(x, norm=True)
        return int8_linear(values, scale, *self.qkvg, dtype=x.dtype), torch.ones_like(scale)

    def hidden(self, x: Tensor, shift: Tensor | None) -> Tensor:
        return int8_swiglu(*quantise_rows(x, norm=True), *self.w13, shift, dtype=x.dtype)

    def add_attention(self, x: Tensor, mixed: Tensor) -> None:
        int8_linear(*quantise_rows(mixed), *self.out, residual=x)

    def add_hidden(self, x: Tensor, hidden: Tensor) -> None:
        int8_linear(*quantise_rows(hidden), *self.w2, residual=x)


def _add_product(x: Tensor, y: Tensor, weight: Tensor) -> None:
    """x += y weight^T in one product, in place."""
    x.view(-1, x.shape[-1]).addmm_(y.flatten(0, 1), weight.T)
