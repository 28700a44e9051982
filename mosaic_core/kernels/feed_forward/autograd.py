"""SwiGLU by its Triton kernels, with its gradient; what the forward pass keeps are its inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mosaic_core.kernels.feed_forward.triton import backward, forward


def swiglu(x: Tensor, scale: Tensor | None, w13: Tensor, shift: Tensor | None) -> Tensor:
    """See `mosaic_core.kernels.feed_forward.swiglu.swiglu`; casts as autocast does a product."""
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        x, w13 = x.to(dtype), w13.to(dtype)
    out: Tensor = _SwiGLU.apply(x, scale, w13, shift)
    return out


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor | None, w13: Tensor, shift: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, scale, w13, shift)
        return forward.swiglu(x, scale, w13, shift)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, w13, shift = ctx.saved_tensors
        of_x, of_scale, of_w13, _ = ctx.needs_input_grad
        du, total = backward.gradient(slope, x, scale, w13, shift)
        dx = dscale = dw13 = None
        if of_x or of_scale:
            dx = du @ w13
        if of_scale:
            assert dx is not None
            dscale = torch.linalg.vecdot(x.float(), dx.float()).to(scale.dtype)
        if scale is not None:
            factor = scale[..., None]
            dx = dx if dx is None else (dx * factor).to(x.dtype)
            x = (x * factor).to(x.dtype)
        if of_w13:
            dw13 = du.flatten(0, 1).T @ x.flatten(0, 1)
        return dx, dscale, dw13, None if total is None else total.to(shift.dtype)
