"""Attention of each target point to its neighbours on another grid."""

from __future__ import annotations

from torch import Tensor

from mosaic_core.kernels import dispatch
from mosaic_core.kernels.dispatch import Backend
from mosaic_core.kernels.interpolation import blocked, reference


def neighbour_attention(
    kappa: Tensor,
    values: Tensor,
    neighbours: Tensor,
    directions: Tensor,
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
        backend: `reference` materialises everything; anything else runs in pieces.

    Returns:
        (batch, target, head, width), dtype of `values`.
    """
    chosen = dispatch.choose("interpolation", values, backend, "no kernel yet")
    twin = reference if chosen == "reference" else blocked
    return twin.neighbour_attention(kappa, values, neighbours, directions)
