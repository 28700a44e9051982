"""Row factors, rotary code and block means in Triton: one read and one write of the projection.

A program holds the tokens of one block. Its angles stay in registers while its heads pass one
after the other.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from mosaic_core.kernels.builds import Build
from mosaic_core.kernels.launch import on_device


@triton.jit
def _rotate_and_average(
    p_ptr, scale_ptr, rotary_ptr, mean_ptr, tokens, p_batch, ROW: tl.constexpr,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, WIDTH: tl.constexpr,
    BLOCK: tl.constexpr, TILE: tl.constexpr, LOGITS: tl.constexpr,
):  # fmt: skip
    block, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    offset = tl.arange(0, TILE)
    live = (offset < BLOCK)[:, None]
    token = block * BLOCK + offset
    column = tl.arange(0, WIDTH)
    scale = tl.load(scale_ptr + batch * tokens + token, mask=offset < BLOCK, other=0.0)[:, None]
    angle = tl.load(rotary_ptr + token[:, None] * WIDTH + column[None, :], mask=live, other=0.0)
    cosine, sine = tl.split(tl.reshape(angle, (TILE, WIDTH // 2, 2)))
    rows_at = p_ptr + batch * p_batch + token[:, None].to(tl.int64) * ROW
    heads: tl.constexpr = HEADS + 2 * KV_HEADS
    mean_at = mean_ptr + (batch * (tokens // BLOCK) + block) * heads * WIDTH
    for head in range(HEADS + KV_HEADS):
        at = rows_at + (head * WIDTH + column)[None, :]
        x = tl.load(at, mask=live, other=0.0).to(tl.float32) * scale
        a, b = tl.split(tl.reshape(x, (TILE, WIDTH // 2, 2)))
        turned = tl.join(a * cosine - b * sine, b * cosine + a * sine)
        turned = tl.reshape(turned, (TILE, WIDTH))
        tl.store(at, turned.to(p_ptr.dtype.element_ty), mask=live)
        mean = tl.sum(turned, 0) / BLOCK
        tl.store(mean_at + head * WIDTH + column, mean.to(mean_ptr.dtype.element_ty))
    for head in range(HEADS + KV_HEADS, heads):
        at = rows_at + (head * WIDTH + column)[None, :]
        x = tl.load(at, mask=live, other=0.0).to(tl.float32) * scale
        tl.store(at, x.to(p_ptr.dtype.element_ty), mask=live)
        mean = tl.sum(x, 0) / BLOCK
        tl.store(mean_at + head * WIDTH + column, mean.to(mean_ptr.dtype.element_ty))
    logit = tl.arange(0, LOGITS)
    inside = live & (logit < 3 * HEADS)[None, :]
    at = rows_at + (heads * WIDTH + logit)[None, :]
    x = tl.load(at, mask=inside, other=0.0).to(tl.float32) * scale
    tl.store(at, x.to(p_ptr.dtype.element_ty), mask=inside)


def rotate_and_average(
    p: Tensor, scale: Tensor, rotary: Tensor, heads: int, kv_heads: int, block_size: int
) -> tuple[Tensor, ...]:
    """See `mosaic_core.kernels.projections.rotary.rotate_and_average`."""
    batch, tokens, _ = p.shape
    width, blocks = 2 * rotary.shape[1], tokens // block_size
    means = p.new_empty(batch, blocks, heads + 2 * kv_heads, width)
    with on_device(p):
        _rotate_and_average[(blocks, batch)](
            p, scale.float().contiguous(), rotary.float().contiguous(), means,
            tokens, p.stride(0), p.stride(1), **_constants(heads, kv_heads, width, block_size),
            num_warps=_WARPS,
        )  # fmt: skip
    return means.split((heads, kv_heads, kv_heads), dim=2)


_WARPS = 8


def _constants(heads: int, kv_heads: int, width: int, block_size: int) -> dict[str, int]:
    return {
        "HEADS": heads,
        "KV_HEADS": kv_heads,
        "WIDTH": width,
        "BLOCK": block_size,
        "TILE": triton.next_power_of_2(block_size),
        "LOGITS": triton.next_power_of_2(3 * heads),
    }


def _build(heads: int, kv_heads: int) -> Build:
    columns = (heads + 2 * kv_heads) * 64 + 3 * heads
    return Build(
        name=f"rotary code and block means, {heads} heads",
        kernel=_rotate_and_average,
        types={
            "p_ptr": "*fp16",
            "scale_ptr": "*fp32",
            "rotary_ptr": "*fp32",
            "mean_ptr": "*fp16",
            "tokens": "i32",
            "p_batch": "i32",
        },
        constants={"ROW": columns + -columns % 8, **_constants(heads, kv_heads, 64, 128)},
        warps=_WARPS,
        aligned=frozenset({"tokens", "p_batch"}),
        products=False,
    )


BUILDS: tuple[Build, ...] = (_build(12, 3), _build(16, 4), _build(20, 5))
