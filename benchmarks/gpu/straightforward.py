"""The network in torch's own operations, without our kernels: what ours is measured against.

Plain functions of tensors, so that each compiles to one graph.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.cases import grouped, mixed
from benchmarks.gpu.networks import Step
from mosaic_core.kernels.interpolation.reference import neighbour_attention
from mosaic_core.model.config import StageConfig
from mosaic_core.model.interpolation import Interpolation
from mosaic_core.model.layers import rms_norm
from mosaic_core.model.network import Block, Mosaic

Function = Callable[..., Tensor]

_TOGETHER = 4
"""Members whose gathered neighbours the interpolation holds at once."""


class Weights(NamedTuple):
    """Of one block; `noise` is None in a deterministic model."""

    q: Tensor
    k: Tensor
    v: Tensor
    o: Tensor
    gates: Tensor
    w13: Tensor
    w2: Tensor
    noise: Tensor | None


def straightforward(network: Mosaic, compiled: Callable[[Function], Function]) -> Step:
    """The network in float16; `compiled` is applied to a block of each stage and to the gathers.

    What is left (linear maps and norms before, between and after the stages) runs as the modules
    do. Neighbours are gathered for `_TOGETHER` members at a time, listed key blocks for all.
    """
    half = copy.deepcopy(network).half()
    gather = compiled(neighbour_attention)
    blocks: dict[StageConfig, Function] = {}
    for module in half.modules():
        if isinstance(module, Block):
            stage = module.attention.stage
            if stage not in blocks:
                blocks[stage] = compiled(block_of(stage))
            module.forward = partial(blocks[stage], weights_of(module))  # type: ignore[method-assign]
        elif isinstance(module, Interpolation):
            tables = module.neighbors, module.rel_pos
            module.gather = partial(_in_groups, gather, *tables)  # type: ignore[method-assign]

    @torch.no_grad()
    def step(states: Tensor, day_year: Tensor, z: Tensor | None) -> Tensor:
        out: Tensor = half(states.half(), day_year, None if z is None else z.half())
        return out

    return step


def _in_groups(
    gather: Function, near: Tensor, directions: Tensor, kappa: Tensor, values: Tensor
) -> Tensor:
    groups = zip(kappa.split(_TOGETHER), values.split(_TOGETHER), strict=True)
    return torch.cat([gather(k, v, near, directions) for k, v in groups])


def weights_of(block: Block) -> Weights:
    attention, ffn = block.attention, block.ffn
    return Weights(
        q=attention.to_q.weight,
        k=attention.to_k.weight,
        v=attention.to_v.weight,
        o=attention.to_o.weight,
        gates=attention.to_strategy_combine_mlp.weight,
        w13=ffn.w13.weight,
        w2=ffn.w2.weight,
        noise=None if ffn.noise_bias is None else ffn.noise_bias.weight,
    )


def block_of(stage: StageConfig) -> Callable[[Weights, Tensor, Tensor | None, Tensor], Tensor]:
    """`Block.forward` of a stage with its weights given, all three branches."""

    def block(weights: Weights, x: Tensor, z: Tensor | None, rotary: Tensor) -> Tensor:
        x = x + _attention(stage, weights, rms_norm(x), rotary)
        u1, u3 = F.linear(rms_norm(x), weights.w13).chunk(2, -1)
        if weights.noise is not None and z is not None:
            u1 = u1 + F.linear(z, weights.noise)[:, None]
        return x + F.linear(F.silu(u1) * u3, weights.w2)

    return block


def _attention(stage: StageConfig, weights: Weights, x: Tensor, rotary: Tensor) -> Tensor:
    q = _rotated(F.linear(x, weights.q).unflatten(-1, (stage.heads, -1)), rotary)
    k = _rotated(F.linear(x, weights.k).unflatten(-1, (stage.kv_heads, -1)), rotary)
    v = F.linear(x, weights.v).unflatten(-1, (stage.kv_heads, -1))
    runs = (y.reshape(-1, stage.local, *y.shape[2:]) for y in (q, k, v))
    means = [y.unflatten(1, (-1, stage.block)).mean(2) for y in (q, k, v)]
    lists = _scores(*means[:2]).topk(stage.selected).indices
    out = mixed(
        F.linear(x, weights.gates).unflatten(-1, (stage.heads, 3)),
        grouped(*runs).reshape(q.shape),
        grouped(*means),
        selected_attention(q, k, v, lists, stage.block),
    )
    return F.linear(out.flatten(2), weights.o)


def _rotated(x: Tensor, rotary: Tensor) -> Tensor:
    """As `mosaic_core.model.layers.rotate`, without complex numbers, which are not compiled."""
    exact = torch.promote_types(x.dtype, torch.float32)
    even, odd = x.to(exact).unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = rotary.to(exact)[:, None].unbind(-1)
    turned = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), -1)
    return turned.flatten(-2).to(x.dtype)


def _scores(q_blocks: Tensor, k_blocks: Tensor) -> Tensor:
    """As `mosaic_core.model.attention.selection_scores`, by views in place of gathers."""
    group = q_blocks.shape[2] // k_blocks.shape[2]
    exact = torch.promote_types(q_blocks.dtype, torch.float32)
    queries, keys = (
        x.to(exact).unflatten(2, (group, -1))
        for x in (q_blocks, k_blocks.repeat_interleave(group, dim=2))
    )
    return torch.einsum("btghc,bughc->bthu", queries, keys) / group


def selected_attention(q: Tensor, k: Tensor, v: Tensor, lists: Tensor, size: int) -> Tensor:
    """Listed key blocks of every query block gathered at once; heads of a group are one query."""
    batch, tokens, heads, width = q.shape
    blocks, kv_heads = tokens // size, k.shape[2]
    queries = q.reshape(batch, blocks, size, kv_heads, -1, width).permute(0, 1, 3, 4, 2, 5)
    first = blocks * torch.arange(batch * kv_heads, device=q.device).view(batch, 1, kv_heads, 1)
    rows = (lists + first).flatten()
    keys, values = (
        x.reshape(batch, blocks, size, kv_heads, width)
        .permute(0, 3, 1, 2, 4)
        .reshape(-1, size * width)
        .index_select(0, rows)
        .view(batch * blocks, kv_heads, -1, width)
        for x in (k, v)
    )
    out = F.scaled_dot_product_attention(
        queries.reshape(batch * blocks, kv_heads, -1, width), keys, values
    )
    out = out.view(batch, blocks, kv_heads, -1, size, width).permute(0, 1, 4, 2, 3, 5)
    return out.reshape(batch, tokens, heads, width)
