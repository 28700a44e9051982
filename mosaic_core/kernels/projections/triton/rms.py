"""Row factors of RMSNorm in Triton: one read of x, sums in float32."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.kernels.builds import Build
from mosaic_core.kernels.launch import on_device
from mosaic_core.kernels.projections.reference import NORM_EPS


@triton.jit
def _inverse_rms(
    x_ptr, out_ptr, rows, features, x_row, EPS: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = row < rows
    squares = tl.zeros((ROWS, TILE), tl.float32)
    for start in range(0, features, TILE):
        column = start + tl.arange(0, TILE)
        mask = live[:, None] & (column < features)[None, :]
        x = tl.load(x_ptr + row[:, None] * x_row + column[None, :], mask=mask, other=0.0)
        x = x.to(tl.float32)
        squares += x * x
    mean = tl.sum(squares, 1) / features
    tl.store(out_ptr + row, 1.0 / tl.sqrt_rn(mean + EPS), mask=live)


def inverse_rms(x: Tensor) -> Tensor:
    """See `mosaic_core.kernels.projections.rms.inverse_rms`."""
    out = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    flat = x.reshape(-1, x.shape[-1])
    flat = flat if flat.stride(1) == 1 else flat.contiguous()
    with on_device(x):
        _inverse_rms[(triton.cdiv(len(flat), _TILES["ROWS"]),)](
            flat, out, *flat.shape, flat.stride(0), **_TILES, num_warps=4
        )
    return out


_TILES = {"EPS": NORM_EPS, "ROWS": 16, "TILE": 256}

BUILDS: tuple[Build, ...] = (
    Build(
        name="row norm",
        kernel=_inverse_rms,
        types={
            "x_ptr": "*fp16",
            "out_ptr": "*fp32",
            "rows": "i32",
            "features": "i32",
            "x_row": "i32",
        },
        constants=_TILES,
        aligned=frozenset({"rows", "features", "x_row"}),
        products=False,
    ),
)
