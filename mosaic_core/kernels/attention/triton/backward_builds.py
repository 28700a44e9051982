"""The gradients of gated attention, as the published stages launch them."""

from __future__ import annotations

from typing import Any

import triton

from mosaic_core.kernels.attention.triton import backward_kernels
from mosaic_core.kernels.attention.triton.backward import STAGES, SUMMED, launch
from mosaic_core.kernels.builds import Build

_FLOATS = ("scale", "scale_log2")
_LISTS = ("list_ptr", "ends_ptr", "queries_ptr", "kinds_ptr", "pieces_ptr", "piece_offsets_ptr")
_EXACT = ("lse_local_ptr", "lse_selected_ptr", "partial_ptr")
_ALIGNED = frozenset(
    {"tokens", "blocks", "key_blocks", "kind_stride", "g_b"}
    | {f"{x}_{axis}" for x in "qkv" for axis in "bh"}
)
_BLOCK, _WIDTH = 128, 64


def _build(name: str, kernel: Any, constants: dict[str, Any], **launched: Any) -> Build:
    constants = {**constants, "BLOCK": _BLOCK, "WIDTH": _WIDTH}
    return Build(
        name=name,
        kernel=kernel,
        types={n: _type(n) for n in kernel.arg_names if n not in constants},
        constants=constants,
        aligned=_ALIGNED & set(kernel.arg_names) - set(constants),
        **launched,
    )


def _type(name: str) -> str:
    if name == "rows_ptr":
        return "*i64"
    if name.endswith("_ptr"):
        return "*i32" if name in _LISTS else "*fp32" if name in _EXACT else "*fp16"
    return "fp32" if name in _FLOATS else "i32"


def _builds() -> tuple[Build, ...]:
    group = 4
    shape = launch(group, _BLOCK, _WIDTH, exact=False)
    large = {"GROUP": group, "EXACT": False, "TILE_N": shape.tile}
    launched = {"warps": shape.warps, "stages": STAGES}
    return (
        _build(
            "gradients of attention: gates and rows",
            backward_kernels.prepare_kernel,
            {"ROWS": triton.next_power_of_2(_BLOCK)},
            products=False,
        ),
        _build(
            "gradients of attention: queries",
            backward_kernels.query_kernel,
            {**large, "TILE_M": shape.rows},
            **launched,
        ),
        _build(
            "gradients of attention: keys and values",
            backward_kernels.key_kernel,
            {**large, "TILE_M": shape.tile},
            **launched,
        ),
        _build(
            "gradients of attention: sum of the pieces",
            backward_kernels.sum_kernel,
            {"TILE_N": SUMMED},
            products=False,
        ),
    )


BUILDS = _builds()
