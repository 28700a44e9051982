"""The feed-forward layer of the finest stage: separate products, fused, in 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.measuring import Measures, Result, Scale, errors, peaked, poisoned, rated, timed
from mosaic_core.kernels.feed_forward import reference
from mosaic_core.kernels.projections.reference import inverse_rms

BASELINE = "separate"


class Layer:
    """Tokens of some members, weights of unit gain, and the noise's shift."""

    def __init__(self, scale: Scale) -> None:
        members, tokens, dim = scale.pick((4, 49_152, 768), (2, 65, 32))
        self.x = scale.randn(members, tokens, dim)
        self.w13 = scale.randn(8 * dim, dim, scale=dim**-0.5)
        self.w2 = scale.randn(dim, 4 * dim, scale=(4 * dim) ** -0.5)
        self.shift = scale.randn(members, 4 * dim, scale=0.3)
        self.operations = 2 * members * tokens * 12 * dim * dim

    def exact(self, rows: int = 64) -> Tensor:
        """The first tokens of every member in float64."""
        x = self.x[:, :rows].double()
        hidden = reference.swiglu(x, inverse_rms(x), self.w13.double(), self.shift.double())
        return F.linear(hidden, self.w2.double())


def run(scale: Scale) -> Measures:
    layer = Layer(scale)
    yield BASELINE, lambda: _measured(scale, layer, _separate)
    yield "compiled", lambda: _measured(scale, layer, scale.compiled(_separate))
    yield "ours", lambda: _measured(scale, layer, partial(_fused, scale))
    yield "ours_int8", partial(_int8, scale, layer)


def _separate(layer: Layer) -> Tensor:
    """Norm, product, gate, product: each reads and writes all of it."""
    x = F.rms_norm(layer.x, layer.x.shape[-1:], eps=2.0**-23)
    u1, u3 = F.linear(x, layer.w13).chunk(2, -1)
    return F.linear(F.silu(u1 + layer.shift[:, None]) * u3, layer.w2)


def _fused(scale: Scale, layer: Layer) -> Tensor:
    from mosaic_core.kernels.feed_forward.swiglu import swiglu
    from mosaic_core.kernels.projections.rms import inverse_rms

    factor = inverse_rms(layer.x, backend=scale.backend)
    return F.linear(
        swiglu(layer.x, factor, layer.w13, layer.shift, backend=scale.backend), layer.w2
    )


def _int8(scale: Scale, layer: Layer) -> Result:
    from mosaic_core.kernels.projections.int8 import int8_linear, int8_swiglu, quantise_rows

    backend = scale.backend
    w13, w2 = (quantise_rows(w, backend=backend) for w in (layer.w13, layer.w2))

    def call(layer: Layer) -> Tensor:
        rows = quantise_rows(layer.x, norm=True, backend=backend)
        hidden = int8_swiglu(*rows, *w13, layer.shift, backend=backend)
        return int8_linear(*quantise_rows(hidden, backend=backend), *w2, backend=backend)

    return _measured(scale, layer, call)


def _measured(scale: Scale, layer: Layer, call: Callable[[Layer], Tensor]) -> Result:
    with torch.no_grad():
        with poisoned():
            found, peak = peaked(lambda: call(layer), scale)
        result = rated(timed(lambda: call(layer), scale), layer.operations, len(layer.x))
    exact = layer.exact()
    return {**result, "peak_gb": peak, "baseline": BASELINE,
            **errors(found[:, : exact.shape[1]], exact)}  # fmt: skip
