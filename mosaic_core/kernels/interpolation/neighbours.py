"""Attention of each target point to its neighbours on another grid."""

from __future__ import annotations

from torch import Tensor

from mosaic_core.kernels import dispatch
from mosaic_core.kernels.dispatch import Backend
from mosaic_core.kernels.interpolation import blocked, reference
from mosaic_core.kernels.interpolation.tiles import Plan


def neighbour_attention(
    kappa: Tensor,
    values: Tensor,
    neighbours: Tensor,
    directions: Tensor,
    plan: Plan | None = None,
    *,
    backend: Backend | None = None,
) -> Tensor:
    """Softmax over neighbours of direction . kappa(neighbour), applied to their values.

    A query that is a linear map of a direction r in R^3 meets a key x as r . (Wq^T k), so three
    numbers a head stand for the key.

    Args:
        kappa: (batch, source, head, 3), scaled.
        values: (batch, source, head, width).
        neighbours: (target, k) indices of sources.
        directions: (target, k, 3) unit chords.
        plan: `tiles.plan` of these neighbours, which the Triton kernels need.
        backend: `triton`, `blocked` or `reference`; None takes the best that supports the tensors.

    Returns:
        (batch, target, head, width), dtype of `values`.

    Raises:
        DeviceError: the backend asked for does not support these tensors.
    """
    limits = declined(values, plan)
    chosen = dispatch.choose("interpolation", values, backend, limits)
    if chosen == "triton":
        from mosaic_core.kernels.interpolation.triton import neighbours as kernels

        assert plan is not None
        return kernels.neighbour_attention(kappa, values, neighbours, directions, plan)
    twin = reference if chosen == "reference" else blocked
    return twin.neighbour_attention(kappa, values, neighbours, directions)


def declined(values: Tensor, plan: Plan | None) -> str | None:
    """Why the Triton kernels do not take these values (batch, source, head, width), or None."""
    if plan is None:
        return "no plan of tiles was given"
    return dispatch.head_width(values.shape[-1])
