"""The 8-bit kernels as the published stages launch them."""

from __future__ import annotations

import torch

from mosaic_core.kernels.builds import Architecture, Build
from mosaic_core.kernels.projections.reference import LEAST_TOP, NORM_EPS
from mosaic_core.kernels.projections.triton import int8


def _rounding(features: int, norm: bool) -> Build:
    types = {"x_ptr": "*fp16", "q_ptr": "*i8", "scale_ptr": "*fp32"}
    sizes = ("rows", "features", "x_row")
    return Build(
        name=f"rounding of {features} features to 8 bits",
        kernel=int8._quantise_rows,
        types=types | dict.fromkeys(sizes, "i32"),
        constants={"NORM": norm, "EPS": NORM_EPS, "LEAST": LEAST_TOP, **int8.rounding(features)},
        aligned=frozenset(sizes),
        products=False,
    )


def _linear(add: bool, chip: Architecture, capability: tuple[int, int]) -> Build:
    launch = int8.launch_of(capability)
    sizes = ("rows", "dim", "outputs", "x_row", "w_row")
    types = dict.fromkeys((*sizes, "programs"), "i32")
    types |= {"x": "*i8", "w": "*i8", "out": "*fp16"}
    types |= {"x_scale_ptr": "*fp32", "w_scale_ptr": "*fp32"}
    if launch.descriptors:
        types["x"] = f"tensordesc<i8{[launch.tile_m, launch.tile_k]}>"
        types["out"] = f"tensordesc<fp16{[launch.tile_m, launch.tile_n]}>"
        types["w"] = f"tensordesc<i8{[launch.tile_n, launch.tile_k]}>"
    return Build(
        name=f"linear map in 8 bits{', added' if add else ''}",
        kernel=int8._linear,
        types=types,
        constants={"ADD": add, **launch.constants(torch.int8)},
        warps=launch.warps,
        stages=launch.stages,
        aligned=frozenset(sizes),
        architectures=(chip,),
    )


BUILDS: tuple[Build, ...] = (
    *(_rounding(features, norm) for features, norm in ((768, True), (1280, True), (3072, False))),
    *(_linear(add, 80, (8, 0)) for add in (False, True)),
    *(_linear(add, 90, (9, 0)) for add in (False, True)),
)
