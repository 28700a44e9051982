"""The factor by which RMSNorm scales a row."""

from __future__ import annotations

import torch
from torch import Tensor

from mosaic_core.kernels import dispatch
from mosaic_core.kernels.dispatch import Backend
from mosaic_core.kernels.projections import reference
from mosaic_core.kernels.projections.reference import NORM_EPS as NORM_EPS


def inverse_rms(x: Tensor, *, backend: Backend | None = None) -> Tensor:
    """1 / sqrt(mean(x^2 over features) + `NORM_EPS`) (Zhang and Sennrich 2019).

    The norm has no scale of its own, so norm(x) W = inverse_rms(x) * (x W): the row factor may be
    applied after the product, and the normalised x is never stored.

    Args:
        x: (..., features).

    Returns:
        (...,), float32 (float64 for float64 x).

    Raises:
        DeviceError: the backend asked for does not support these tensors.
    """
    limits = None
    if torch.is_grad_enabled() and x.requires_grad:
        limits = "the triton kernel has no backward"
    if dispatch.choose("row norm", x, backend, limits) == "triton":
        from mosaic_core.kernels.projections.triton import rms as triton_rms

        return triton_rms.inverse_rms(x)
    return reference.inverse_rms(x)
