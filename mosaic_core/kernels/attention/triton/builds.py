"""The forward kernel as the published model's first stage launches it, chip by chip."""

from __future__ import annotations

from typing import Any

from mosaic_core.kernels.attention.triton.forward import forward_kernel, launch
from mosaic_core.kernels.builds import Architecture, Build

_GROUP, _BLOCK, _WIDTH = 4, 128, 64
# Not q_s, k_s and v_s: 1192 / 8, for the rows of a fused projection.
_ALIGNED = {"q_b", "q_h", "k_b", "k_h", "v_b", "v_h", "c_b", "c_t", "c_h", "o_b"}
_ONLY_GATED = ("ends_ptr", "logits_ptr", "compressed_ptr")
_ONLY_SAVED = ("o_selected_ptr", "lse_local_ptr", "lse_selected_ptr")


def _type(name: str, box: str | None) -> str:
    if name in ("k_src", "v_src"):
        return "*fp16" if box is None else f"tensordesc<fp16[{box}]>"
    if name in ("list_ptr", "ends_ptr"):
        return "*i32"
    if name.endswith("_ptr"):
        return "*fp32" if name.startswith("lse") else "*fp16"
    return "fp32" if name == "scale_log2" else "i32"


def _build(name: str, chip: Architecture, gated: bool, save: bool) -> Build:
    shape = launch((chip // 10, chip % 10), _GROUP * _BLOCK, _BLOCK, _WIDTH, exact=False)
    constants: dict[str, Any] = {
        "GROUP": _GROUP, "BLOCK": _BLOCK, "WIDTH": _WIDTH,
        "TILE_M": shape.tile_m, "TILE_N": shape.tile_n,
        "GATED": gated, "SAVE": save, "DESCRIPTORS": shape.descriptors,
    }  # fmt: skip
    constants |= dict.fromkeys(() if gated else _ONLY_GATED)
    constants |= dict.fromkeys(() if save else _ONLY_SAVED)
    box = f"1,{shape.tile_n},1,{_WIDTH}" if shape.descriptors else None
    names = [n for n in forward_kernel.arg_names if n not in constants]
    return Build(
        name=name,
        kernel=forward_kernel,
        types={n: _type(n, box) for n in names},
        constants=constants,
        warps=shape.warps,
        stages=shape.stages,
        aligned=frozenset(_ALIGNED),
        architectures=(chip,),
    )


BUILDS: tuple[Build, ...] = tuple(
    _build(name, chip, gated, save)
    for name, gated, save in (
        ("gated attention", True, False),
        ("gated attention for training", True, True),
        ("sparse attention", False, False),
    )
    for chip in (80, 90, 100)
)
