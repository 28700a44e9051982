"""The selection of key blocks, as the published stages and finer meshes launch it."""

from __future__ import annotations

from mosaic_core.kernels.attention.triton.select import _select, warps
from mosaic_core.kernels.builds import Build


def _build(blocks: int, width: int) -> Build:
    names = [n for n in _select.arg_names if n not in ("LOCAL", "WIDTH", "TAIL")]
    types = {n: "*i32" if n in ("blocks_ptr", "ends_ptr") else "i32" for n in names}
    return Build(
        name=f"selection of {blocks} key blocks",
        kernel=_select,
        types={**types, "scores_ptr": "*fp32"},
        constants={"LOCAL": 8, "WIDTH": width, "TAIL": 8},
        warps=warps(width),
        aligned=frozenset({"blocks", "s_b", "s_t", "s_h"}),
        products=False,
    )


BUILDS: tuple[Build, ...] = (_build(384, 512), _build(6144, 8192))
