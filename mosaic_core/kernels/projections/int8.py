"""Linear maps in 8-bit integers, for inference where it is asked for.

Each row of the input and each output channel of the weights has its own scale, so the factor of a
norm is absorbed; sums are exact in 32 bits.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mosaic_core.kernels import dispatch
from mosaic_core.kernels.dispatch import Backend
from mosaic_core.kernels.projections import reference


def quantise_rows(
    x: Tensor, *, norm: bool = False, backend: Backend | None = None
) -> tuple[Tensor, Tensor]:
    """Round rows to integers of -127 to 127, ties to even.

    A row that holds NaN or infinity has a scale that is not finite, so products show it.

    Args:
        x: (..., features): activations, or weights (outputs, inputs) once.
        norm: give the scale of x * inverse_rms(x), whose integers are the same.

    Returns:
        int8 of the shape of x, and (...,) float32 by which they are multiplied.

    Raises:
        DeviceError: the backend asked for does not support these tensors.
    """
    limits = None
    if x.shape[-1] > 8192:
        limits = f"rows of {x.shape[-1]} features, over 8192"
    if dispatch.choose("8-bit rounding", x, backend, limits) == "triton":
        from mosaic_core.kernels.projections.triton import int8 as triton_int8

        return triton_int8.quantise_rows(x, norm)
    return reference.quantise_rows(x, norm)


def int8_linear(
    xq: Tensor,
    xs: Tensor,
    wq: Tensor,
    ws: Tensor,
    *,
    residual: Tensor | None = None,
    dtype: torch.dtype = torch.float16,
    backend: Backend | None = None,
) -> Tensor:
    """xs ws (xq wq^T), added to `residual` in place where there is one.

    Args:
        xq, xs: of `quantise_rows`, (..., inputs) and (...,).
        wq, ws: of `quantise_rows` of the weights, (outputs, inputs) and (outputs,).
        residual: (..., outputs), contiguous; it is what is returned.
        dtype: of the result where there is no residual.

    Raises:
        DeviceError: the backend asked for does not support these tensors.
        ValueError: shapes that do not fit together.
    """
    _check(xq, xs, wq, ws)
    shape = (*xq.shape[:-1], wq.shape[0])
    if residual is not None and (residual.shape != shape or not residual.is_contiguous()):
        raise ValueError(f"residual {tuple(residual.shape)} for {shape}, or not contiguous")
    out = residual if residual is not None else xq.new_empty(shape, dtype=dtype)
    if dispatch.choose("8-bit linear", out, backend, _limits(xq, wq.shape[0])) == "triton":
        from mosaic_core.kernels.projections.triton import int8 as triton_int8

        triton_int8.int8_linear(xq, xs, wq, ws, out, add=residual is not None)
        return out
    product = reference.int8_product(xq, xs, wq, ws)
    return out.copy_(product + out if residual is not None else product)


def int8_swiglu(
    xq: Tensor,
    xs: Tensor,
    w13q: Tensor,
    w13s: Tensor,
    shift: Tensor | None,
    *,
    dtype: torch.dtype = torch.float16,
    backend: Backend | None = None,
) -> Tensor:
    """silu(u1 + shift) * u3, (u1, u3) = xs w13s (xq w13q^T).

    Args:
        xq, xs: of `quantise_rows`, (batch, token, inputs) and (batch, token).
        w13q, w13s: of `quantise_rows` of the weights, (2 hidden, inputs) and (2 hidden,).
        shift: (batch, hidden) or None.
        dtype: of the result.

    Returns:
        (batch, token, hidden).

    Raises:
        DeviceError: the backend asked for does not support these tensors.
        ValueError: shapes that do not fit together.
    """
    _check(xq, xs, w13q, w13s)
    hidden = w13q.shape[0] // 2
    if xq.ndim != 3 or (shift is not None and shift.shape != (xq.shape[0], hidden)):
        given = None if shift is None else tuple(shift.shape)
        raise ValueError(f"input {tuple(xq.shape)}, shift {given}, {hidden} hidden features")
    out = xq.new_empty((*xq.shape[:-1], hidden), dtype=dtype)
    if dispatch.choose("8-bit swiglu", out, backend, _limits(xq, hidden)) == "triton":
        from mosaic_core.kernels.projections.triton import int8 as triton_int8

        triton_int8.int8_swiglu(xq, xs, w13q, w13s, shift, out)
        return out
    u1, u3 = reference.int8_product(xq, xs, w13q, w13s).chunk(2, dim=-1)
    gate = u1 if shift is None else u1 + shift[:, None].double()
    return out.copy_(F.silu(gate) * u3)


def _check(xq: Tensor, xs: Tensor, wq: Tensor, ws: Tensor) -> None:
    if xq.dtype != torch.int8 or wq.dtype != torch.int8:
        raise ValueError(f"products of {xq.dtype} and {wq.dtype}, not of int8")
    if xs.shape != xq.shape[:-1] or ws.shape != wq.shape[:1] or xq.shape[-1] != wq.shape[1]:
        shapes = (tuple(a.shape) for a in (xq, xs, wq, ws))
        raise ValueError(f"input {next(shapes)} {next(shapes)}, weights {next(shapes)}")


def _limits(xq: Tensor, outputs: int) -> str | None:
    """Why the Triton kernels do not multiply these integers, None if they do."""
    if xq.shape[-1] % 16:
        return f"rows of {xq.shape[-1]} integers are no multiple of 16"
    if outputs % 8:
        return f"{outputs} outputs are no multiple of 8"
    return declined_by_chip(xq.device)


def declined_by_chip(device: torch.device) -> str | None:
    """Why 8-bit products do not run on this device's chip, None if they do."""
    if device.type == "cuda" and (10, 0) <= torch.cuda.get_device_capability(device) < (12, 0):
        return (
            "not every triton multiplies 8-bit integers on this chip's tensor cores (3.6 does not)"
        )
    return None
