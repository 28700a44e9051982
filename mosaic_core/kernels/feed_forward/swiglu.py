"""Feed-forward layer with a gate whose noise shifts it, one shift a batch element."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mosaic_core.kernels import dispatch
from mosaic_core.kernels.dispatch import Backend
from mosaic_core.kernels.feed_forward import blocked, reference


def swiglu(
    x: Tensor,
    scale: Tensor | None,
    w13: Tensor,
    shift: Tensor | None,
    *,
    backend: Backend | None = None,
) -> Tensor:
    """silu(scale (x W1^T) + shift) * scale (x W3^T) (Shazeer 2020), differentiable.

    Args:
        x: (batch, token, dim).
        scale: (batch, token), float32: factor of each row, as `inverse_rms` gives it, or None.
        w13: W1 above W3, (2 hidden, dim).
        shift: (batch, hidden) or None.
        backend: `triton`, `blocked` or `reference`; None takes the best that supports the tensors.

    Returns:
        (batch, token, hidden), dtype of the product of x and w13 (under autocast, its).

    Raises:
        DeviceError: the backend asked for does not support these tensors.
        ValueError: shapes that do not fit together.
    """
    _check(x, scale, w13, shift)
    chosen = _choose(x, w13, backend)
    if chosen == "triton":
        from mosaic_core.kernels.feed_forward import autograd

        return autograd.swiglu(x, scale, w13, shift)
    twin = blocked if chosen == "blocked" else reference
    return twin.swiglu(x, scale, w13, shift)


def feed_forward(
    x: Tensor,
    scale: Tensor | None,
    w13: Tensor,
    shift: Tensor | None,
    w2: Tensor,
    *,
    backend: Backend | None = None,
) -> Tensor:
    """swiglu(x) W2^T; the blocked backend never holds the hidden features of all tokens.

    Args:
        w2: (dim, hidden); the others as in `swiglu`.

    Returns:
        (batch, token, dim).

    Raises:
        DeviceError, ValueError: as `swiglu`.
    """
    _check(x, scale, w13, shift)
    if _choose(x, w13, backend) == "blocked":
        return blocked.feed_forward(x, scale, w13, shift, w2)
    return F.linear(swiglu(x, scale, w13, shift, backend=backend), w2)


def _choose(x: Tensor, w13: Tensor, backend: Backend | None) -> Backend:
    limits = None
    for kind, features in (("input", x.shape[-1]), ("hidden", w13.shape[0] // 2)):
        if features % 8:
            limits = f"{features} {kind} features are no multiple of 8"
    return dispatch.choose("swiglu", x, backend, limits, dispatch.slow_in_float32(x))


def _check(x: Tensor, scale: Tensor | None, w13: Tensor, shift: Tensor | None) -> None:
    hidden, odd = divmod(w13.shape[0], 2)
    if x.ndim != 3 or odd or w13.shape[1] != x.shape[2]:
        raise ValueError(f"input {tuple(x.shape)}, weights {tuple(w13.shape)}")
    if scale is not None and scale.shape != x.shape[:2]:
        raise ValueError(f"scale {tuple(scale.shape)} for input {tuple(x.shape)}")
    if shift is not None and shift.shape != (x.shape[0], hidden):
        raise ValueError(f"shift {tuple(shift.shape)} for {hidden} hidden features")
