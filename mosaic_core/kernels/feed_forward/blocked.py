"""The same in runs of tokens whose hidden features fit the cache, by torch's own kernels."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mosaic_core.kernels.feed_forward import reference

_HIDDEN_BYTES = {"cpu": 64 << 20, "cuda": 2 << 30}


def swiglu(x: Tensor, scale: Tensor | None, w13: Tensor, shift: Tensor | None) -> Tensor:
    """See `mosaic_core.kernels.feed_forward.swiglu.swiglu`."""
    return _in_runs(lambda x, scale: reference.swiglu(x, scale, w13, shift), x, scale, len(w13))


def feed_forward(
    x: Tensor, scale: Tensor | None, w13: Tensor, shift: Tensor | None, w2: Tensor
) -> Tensor:
    """See `mosaic_core.kernels.feed_forward.swiglu.feed_forward`."""

    def run(x: Tensor, scale: Tensor | None) -> Tensor:
        return F.linear(reference.swiglu(x, scale, w13, shift), w2)

    return _in_runs(run, x, scale, len(w13))


def _in_runs(
    run: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, scale: Tensor | None, features: int
) -> Tensor:
    """All tokens at once where gradients are due: they need all of it anyway."""
    if torch.is_grad_enabled():
        return run(x, scale)
    row_bytes = 2 * x.shape[0] * features * x.element_size()
    step = max(1, _HIDDEN_BYTES.get(x.device.type, 1 << 28) // row_bytes)
    parts = x.split(step, dim=1)
    scales = [None] * len(parts) if scale is None else scale.split(step, dim=1)
    return torch.cat([run(*part) for part in zip(parts, scales, strict=True)], dim=1)
