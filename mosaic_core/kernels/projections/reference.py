"""Readable twins of the projections' kernels; 8-bit products are exact in their integers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NORM_EPS = 2.0**-23
"""Machine epsilon of float32, whatever the type of the input."""

LEAST_TOP = 1e-30
"""Rows whose largest number is smaller are rounded to zeros: 127 over it has to be finite."""


def inverse_rms(x: Tensor) -> Tensor:
    """See `mosaic_core.kernels.projections.rms.inverse_rms`."""
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    return torch.rsqrt(exact.square().mean(-1) + NORM_EPS)


def rotate_and_average(
    p: Tensor, scale: Tensor, rotary: Tensor, heads: int, kv_heads: int, block_size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """See `mosaic_core.kernels.projections.rotary.rotate_and_average`."""
    width = 2 * rotary.shape[1]
    turned, straight = (heads + kv_heads) * width, (heads + 2 * kv_heads) * width
    used = p[..., : straight + 3 * heads]
    scaled = used.to(torch.promote_types(p.dtype, torch.float32)) * scale[..., None]
    pairs = scaled[..., :turned].unflatten(-1, (heads + kv_heads, -1, 2)).contiguous()
    angle = torch.view_as_complex(rotary.to(scaled.dtype).contiguous())
    scaled[..., :turned] = torch.view_as_real(
        torch.view_as_complex(pairs) * angle[:, None]
    ).flatten(2)
    used.copy_(scaled)
    means = scaled[..., :straight].unflatten(1, (-1, block_size)).mean(2)
    q, k, v = means.unflatten(-1, (-1, width)).to(p.dtype).split((heads, kv_heads, kv_heads), 2)
    return q, k, v


def quantise_rows(x: Tensor, norm: bool) -> tuple[Tensor, Tensor]:
    """See `mosaic_core.kernels.projections.int8.quantise_rows`."""
    exact = x.float()
    top = exact.abs().amax(-1)
    inverse = torch.where(top > LEAST_TOP, 127 / top, 0)
    rounded = (exact * inverse[..., None]).round()
    scale = top / 127
    return rounded.nan_to_num(0, 0, 0).to(torch.int8), scale * inverse_rms(x) if norm else scale


def int8_product(xq: Tensor, xs: Tensor, wq: Tensor, ws: Tensor) -> Tensor:
    """(..., outputs), float64: the integer product is exact."""
    product = F.linear(xq.double(), wq.double())
    return product * xs[..., None].double() * ws.double()
