"""Readable twin: the gate and the value are materialised."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def swiglu(x: Tensor, scale: Tensor | None, w13: Tensor, shift: Tensor | None) -> Tensor:
    """See `mosaic_core.kernels.feed_forward.swiglu.swiglu`."""
    product = F.linear(x, w13)
    u = product if scale is None else product * scale[..., None]
    u1, u3 = u.chunk(2, dim=-1)
    gate = u1 if shift is None else u1 + shift[:, None]
    own = not torch.is_grad_enabled() and shift is not None
    return (F.silu(gate, inplace=own) * u3).to(product.dtype)
