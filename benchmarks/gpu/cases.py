"""Inputs of attention, and the formulations that it is measured against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.measuring import Scale
from benchmarks.gpu.operations import attention
from mosaic_core.kernels.attention import blocked
from mosaic_core.model.config import StageConfig

STAGE = StageConfig(
    nside=64, dim=768, heads=12, kv_heads=3, local=1024, block=128, selected=24, encoder_depth=4
)
"""The finest stage of the published models."""

TINY = StageConfig(
    nside=4, dim=96, heads=6, kv_heads=2, local=64, block=16, selected=5, encoder_depth=1
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Projections of one layer, and its lists.

    Attributes:
        q: (batch, token, head, width); k, v: with kv heads.
        logits: of the gates, (batch, token, head, 3).
        lists: selected key blocks, (batch, query block, kv head, n).
    """

    stage: StageConfig
    q: Tensor
    k: Tensor
    v: Tensor
    logits: Tensor
    lists: Tensor
    compressed: Tensor = field(init=False)

    def __post_init__(self) -> None:
        means = (x.unflatten(1, (-1, self.stage.block)).mean(2) for x in (self.q, self.k, self.v))
        object.__setattr__(self, "compressed", grouped(*means))

    @property
    def operations(self) -> int:
        """Of local and selected branch, which is what is timed besides small change."""
        counts = attention(self.stage)
        return len(self.q) * (counts["local"] + counts["selected"])


def case(
    scale: Scale,
    batch: int,
    *,
    stage: StageConfig | None = None,
    overlap: int = 0,
    spread: Literal["uniform", "clustered"] = "uniform",
    dtype: torch.dtype = torch.float16,
) -> Case:
    """Random projections; of each list `overlap` blocks lie in the query's own local group."""
    stage = stage or scale.pick(STAGE, TINY)
    width = stage.dim // stage.heads
    q, k, v = (
        scale.randn(batch, stage.tokens, heads, width, dtype=dtype)
        for heads in (stage.heads, stage.kv_heads, stage.kv_heads)
    )
    logits = scale.randn(batch, stage.tokens, stage.heads, 3, dtype=dtype)
    lists = block_lists(stage, batch, overlap, spread).to(scale.device)
    return Case(stage, q, k, v, logits, lists)


def block_lists(stage: StageConfig, batch: int, overlap: int, spread: str) -> Tensor:
    """Random lists, (batch, query block, kv head, n); `clustered` ones are near."""
    blocks, local = stage.tokens // stage.block, stage.local // stage.block
    votes = torch.rand(batch, blocks, stage.kv_heads, blocks)
    here = torch.arange(blocks)
    if spread == "clustered":
        votes -= 4.0 * (here[:, None] - here).abs()[:, None] / stage.selected
    own = (here[:, None] // local == here // local)[:, None].expand_as(votes)
    inside = votes.masked_fill(~own, -torch.inf).topk(overlap).indices
    outside = votes.masked_fill(own, -torch.inf).topk(stage.selected - overlap).indices
    return torch.cat((inside, outside), -1)


def grouped(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Dense attention of (batch, token, head, width) by torch, kv heads shared by groups."""
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), enable_gqa=True
    )
    return out.transpose(1, 2)


def mixed(logits: Tensor, local: Tensor, compressed: Tensor, selected: Tensor) -> Tensor:
    """Branches under their gates; compressed is (batch, block, head, width)."""
    exact = torch.promote_types(logits.dtype, torch.float32)
    gates = torch.softmax(logits, -1, dtype=exact).to(local.dtype)[..., None]
    size = local.shape[1] // compressed.shape[1]
    spread = compressed.repeat_interleave(size, dim=1)
    return gates[..., 0, :] * local + gates[..., 1, :] * spread + gates[..., 2, :] * selected


def local_branch(given: Case) -> Tensor:
    runs = (x.reshape(-1, given.stage.local, *x.shape[2:]) for x in (given.q, given.k, given.v))
    return grouped(*runs).reshape(given.q.shape)


def separate(given: Case) -> Tensor:
    """Each branch by torch's own attention: key blocks gathered, outputs mixed at the end."""
    selected = blocked.block_sparse_attention(
        given.q, given.k, given.v, given.lists, given.stage.block
    )
    return mixed(given.logits, local_branch(given), given.compressed, selected)


def flex(given: Case, compiled: Callable[..., Tensor]) -> Callable[[], Tensor]:
    """The selected branch by FlexAttention with a ready-made mask, the rest as in `separate`."""
    from torch.nn.attention.flex_attention import BlockMask

    q, k, v = (x.transpose(1, 2).contiguous() for x in (given.q, given.k, given.v))
    group = given.stage.heads // given.stage.kv_heads
    lists = given.lists.sort(-1).values.permute(0, 2, 1, 3).repeat_interleave(group, dim=1)
    blocks = given.stage.tokens // given.stage.block
    rest = lists.new_zeros(*lists.shape[:3], blocks - lists.shape[3])
    columns = torch.cat((lists, rest), -1).int()
    count = torch.full(columns.shape[:3], lists.shape[3], dtype=torch.int32, device=columns.device)
    listed = torch.zeros(*lists.shape[:3], blocks, dtype=torch.bool, device=lists.device)
    listed.scatter_(-1, lists, True)
    size = given.stage.block

    def mask_mod(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        """Only what runs without compilation asks this: listed blocks are whole."""
        return listed[b, h, query // size, key // size]

    mask = BlockMask.from_kv_blocks(
        torch.zeros_like(count), torch.zeros_like(columns), count, columns,
        BLOCK_SIZE=size, mask_mod=mask_mod,
    )  # fmt: skip
    attend = partial(compiled, q, k, v, block_mask=mask, enable_gqa=True)

    def call() -> Tensor:
        selected = attend().transpose(1, 2)
        return mixed(given.logits, local_branch(given), given.compressed, selected)

    return call


def exact(given: Case, member: int, block: int) -> Tensor:
    """One query block in float64, (token, head, width): the definition, score by score."""
    stage = given.stage
    group, size = stage.heads // stage.kv_heads, stage.block
    rows = slice(block * size, (block + 1) * size)
    first = block * size // stage.local * stage.local
    gates = torch.softmax(given.logits[member, rows].double(), -1)
    outputs = []
    for head in range(stage.heads):
        q = given.q[member, rows, head].double()
        k, v = (x[member, :, head // group].double() for x in (given.k, given.v))
        listed = given.lists[member, block, head // group].long()
        offsets = torch.arange(size, device=q.device)
        chosen = (listed[:, None] * size + offsets).flatten()
        local = torch.arange(first, first + stage.local, device=q.device)
        branches = [
            torch.softmax(q @ k[at].T * q.shape[1] ** -0.5, -1) @ v[at] for at in (local, chosen)
        ]
        compressed = given.compressed[member, block, head].double().expand_as(q)
        parts = (branches[0], compressed, branches[1])
        outputs.append(torch.stack(parts, -1) @ gates[:, head, :, None])
    return torch.cat(outputs, -1).transpose(1, 2)
