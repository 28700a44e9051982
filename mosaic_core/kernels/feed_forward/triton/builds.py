"""The feed-forward kernels as the published stages launch them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from mosaic_core.kernels.builds import Architecture, Build
from mosaic_core.kernels.feed_forward.triton import backward, forward
from mosaic_core.kernels.feed_forward.triton.tiles import Launch

CHIPS: dict[Architecture, tuple[int, int]] = {80: (8, 0), 90: (9, 0), 100: (10, 0)}

_SIZES = ("tokens", "dim", "hidden", "rows", "x_row", "w_row")


def _build(
    name: str, kernel: Any, chip: Architecture, launch: Launch, dtype: torch.dtype, **types: str
) -> Build:
    element = "i8" if dtype == torch.int8 else "fp16"
    types |= {"scale_ptr": "*fp32", "shift_ptr": "*fp32", "programs": "i32"}
    types |= dict.fromkeys(_SIZES, "i32") | dict.fromkeys(("x", "w13"), f"*{element}")
    if launch.descriptors:
        m, n, k = launch.tile_m, launch.tile_n, launch.tile_k
        tiles = {"x": [m, k], "w13": [n, k], "h_out": [1, m, n], "slope_in": [1, m, n]}
        tiles["du_out"] = [1, m, 1, n]
        for argument in types.keys() & tiles:
            types[argument] = f"tensordesc<{types[argument][1:]}{tiles[argument]}>"
    constants = {"SCALED": True, "SHIFTED": True, **launch.constants(dtype)}
    return Build(
        name=name,
        kernel=kernel,
        types=types,
        constants=constants,
        warps=launch.warps,
        stages=launch.stages,
        aligned=frozenset(_SIZES),
        architectures=(chip,),
    )


def _forward(chip: Architecture, dtype: torch.dtype) -> Build:
    eight_bits = dtype == torch.int8
    build = _build(
        "swiglu in 8 bits" if eight_bits else "swiglu",
        forward._swiglu,
        chip,
        forward.launch_of(dtype, CHIPS[chip]),
        dtype,
        h_out="*fp16",
        **({"w_scale_ptr": "*fp32"} if eight_bits else {}),
    )
    return (
        build if eight_bits else replace(build, constants={**build.constants, "w_scale_ptr": None})
    )


def _gradient(chip: Architecture) -> Build:
    launch = backward.launch_of(torch.float16, CHIPS[chip])
    types = {"slope_in": "*fp16", "du_out": "*fp16", "sum_ptr": "*fp32"}
    return _build("swiglu, gradient", backward._gradient, chip, launch, torch.float16, **types)


BUILDS: tuple[Build, ...] = (
    *(_forward(chip, torch.float16) for chip in CHIPS),
    *(_gradient(chip) for chip in CHIPS),
    *(_forward(chip, torch.int8) for chip in CHIPS if chip < 100),
)
