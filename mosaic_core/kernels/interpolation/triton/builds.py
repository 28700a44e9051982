"""The kernels as the full configuration launches them: both ways, 12 heads of width 64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mosaic_core.kernels.builds import Build
from mosaic_core.kernels.interpolation.tiles import CHUNK, NOT_ONE, TILE
from mosaic_core.kernels.interpolation.triton.backward import (
    WARPS,
    score_slopes_kernel,
    source_slopes_kernel,
)
from mosaic_core.kernels.interpolation.triton.forward import (
    sums_kernel,
    weights_kernel,
    weights_shape,
)

_TYPES = {
    "rows_ptr": "*i32", "first_ptr": "*i32", "union_ptr": "*i32", "slots_ptr": "*u8",
    "neighbours_ptr": "*i64", "directions_ptr": "*fp32", "scores_ptr": "*fp32",
}  # fmt: skip


def _build(
    name: str, kernel: Any, constants: Mapping[str, Any], warps: int, products: bool = True
) -> Build:
    types = {
        n: _TYPES.get(n, "*fp16" if n.endswith("_ptr") else "i32")
        for n in kernel.arg_names
        if n not in constants
    }
    plain = {n for n, kind in types.items() if kind == "i32"}
    return Build(
        name=f"interpolation: {name}",
        kernel=kernel,
        types=types,
        constants=constants,
        warps=warps,
        stages=1,
        aligned=frozenset(plain - {"sources", "kappa_b", "kappa_s", "kappa_h"}),
        products=products,
    )


def _builds(k: int) -> tuple[Build, ...]:
    tiled = {
        "K": k, "WIDTH": 64, "TILE": TILE, "CHUNK": CHUNK, "NOT_ONE": NOT_ONE, "EXACT": False,
    }  # fmt: skip
    return (
        _build(f"weights of {k}", weights_kernel, weights_shape(k, 12), 1, products=False),
        _build(f"sums of {k}", sums_kernel, tiled, 4),
        _build(f"slopes of scores of {k}", score_slopes_kernel, tiled, WARPS),
        _build(f"slopes of sources of {k}", source_slopes_kernel, tiled, WARPS),
    )


BUILDS: tuple[Build, ...] = (*_builds(20), *_builds(24))
