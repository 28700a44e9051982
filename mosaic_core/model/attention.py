"""Block-sparse attention: local, compressed and selected branches under learned gates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mosaic_core.kernels.attention.dense import grouped_attention
from mosaic_core.kernels.attention.gated import gated_attention
from mosaic_core.kernels.attention.lists import top_blocks
from mosaic_core.kernels.attention.sparse import block_sparse_attention
from mosaic_core.model.config import StageConfig
from mosaic_core.model.layers import linear, rotate

BRANCHES = ("local", "compressed", "selected")


def selection_scores(q_blocks: Tensor, k_blocks: Tensor) -> Tensor:
    """How much each query block wants each key block, per kv head.

    The published models let kv head h be voted for by the query heads i with i mod kv_heads = h,
    each measured against kv head i // group, and not by the heads that later use the list.
    The trained weights saw this mixing; grouping heads naturally changes nine lists of ten.

    In float32 or wider whatever autocast says: rounded to 16 bits, scores of near blocks tie.

    Args:
        q_blocks: block means, (batch, block, head, width).
        k_blocks: (batch, block, kv head, width).

    Returns:
        (batch, query block, kv head, key block).
    """
    heads, kv_heads = q_blocks.shape[2], k_blocks.shape[2]
    group = heads // kv_heads
    voters = torch.arange(heads, device=q_blocks.device).view(group, kv_heads).T
    exact = torch.promote_types(q_blocks.dtype, torch.float32)
    queries = q_blocks[:, :, voters].flatten(3).to(exact)
    keys = k_blocks[:, :, voters // group].flatten(3).to(exact)
    device = "cpu" if q_blocks.is_meta else q_blocks.device.type  # a plan of memory has no device
    with torch.autocast(device, enabled=False):
        scores = torch.einsum("bthc,buhc->bthu", queries, keys)
    return scores / group


class BlockSparseAttention(nn.Module):
    """Attention of one block of the trunk.

    `branches` is all three in every published model; with a subset the gates of its branches are
    renormalised, and a single branch has no gates.
    """

    def __init__(self, stage: StageConfig, branches: tuple[str, ...] = BRANCHES) -> None:
        super().__init__()
        self.stage = stage
        self.branches = tuple(b for b in branches if not (b == "selected" and stage.selected == 0))
        width = stage.dim // stage.heads
        self.to_q = linear(stage.dim, stage.dim)
        self.to_k = linear(stage.dim, stage.kv_heads * width)
        self.to_v = linear(stage.dim, stage.kv_heads * width)
        self.to_o = linear(stage.dim, stage.dim)
        if len(branches) > 1:
            self.to_strategy_combine_mlp = linear(stage.dim, 3 * stage.heads)

    def forward(self, x: Tensor, rotary: Tensor) -> Tensor:
        """x (batch, token, dim), rotary (token, width / 2, 2) -> (batch, token, dim)."""
        q = rotate(self.to_q(x).unflatten(-1, (self.stage.heads, -1)), rotary)
        k = rotate(self.to_k(x).unflatten(-1, (self.stage.kv_heads, -1)), rotary)
        v = self.to_v(x).unflatten(-1, (self.stage.kv_heads, -1))
        if self.branches == BRANCHES and self.stage.local % self.stage.block == 0:
            mixed = self.together(q, k, v, self.logits(x))
        else:
            mixed = self.mix(self.attend(q, k, v), x)
        out: Tensor = self.to_o(mixed.flatten(2).to(x.dtype))
        return out

    def together(self, q: Tensor, k: Tensor, v: Tensor, logits: Tensor) -> Tensor:
        """All three branches and their gated sum by one operation."""
        q_blocks, k_blocks, v_blocks = (self.block_means(x) for x in (q, k, v))
        return gated_attention(
            q, k, v, logits,
            grouped_attention(q_blocks, k_blocks, v_blocks),
            self.select(q_blocks, k_blocks),
            block_size=self.stage.block, local=self.stage.local,
        )  # fmt: skip

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> dict[str, Tensor]:
        """Output of each branch: (batch, token, head, width), compressed (batch, block, ...)."""
        outputs = {}
        if "local" in self.branches:
            runs = [x.reshape(-1, self.stage.local, *x.shape[2:]) for x in (q, k, v)]
            outputs["local"] = grouped_attention(*runs).reshape(q.shape)
        if "compressed" in self.branches or "selected" in self.branches:
            q_blocks, k_blocks, v_blocks = (self.block_means(x) for x in (q, k, v))
        if "compressed" in self.branches:
            outputs["compressed"] = grouped_attention(q_blocks, k_blocks, v_blocks)
        if "selected" in self.branches:
            lists = self.select(q_blocks, k_blocks)
            outputs["selected"] = block_sparse_attention(
                q, k, v, lists, block_size=self.stage.block
            )
        return outputs

    def block_means(self, x: Tensor) -> Tensor:
        """(batch, token, head, width) -> (batch, block, head, width)."""
        return x.unflatten(1, (-1, self.stage.block)).mean(2)

    def select(self, q_blocks: Tensor, k_blocks: Tensor) -> Tensor:
        """Key blocks of each query block, best first: (batch, block, kv head, selected)."""
        return top_blocks(selection_scores(q_blocks, k_blocks), self.stage.selected)

    def logits(self, x: Tensor) -> Tensor:
        """Of the gates, (batch, token, head, 3)."""
        return self.to_strategy_combine_mlp(x).unflatten(-1, (self.stage.heads, 3))

    def gates(self, x: Tensor) -> Tensor:
        """Weights of the branches, (batch, token, head, 3): softmax in float32 or wider."""
        exact = torch.promote_types(x.dtype, torch.float32)
        weights = torch.softmax(self.logits(x), -1, dtype=exact)
        if len(self.branches) < len(BRANCHES):
            kept = [BRANCHES.index(b) for b in self.branches]
            total = weights[..., kept].sum(-1, keepdim=True)
            weights = weights / (total + 1e-8)
        return weights.to(x.dtype)

    def mix(self, outputs: dict[str, Tensor], x: Tensor) -> Tensor:
        """Gated sum of the branches, (batch, token, head, width)."""
        if len(outputs) == 1:
            return next(iter(outputs.values()))
        gates = self.gates(x)
        if "compressed" in outputs:
            average = outputs["compressed"].repeat_interleave(self.stage.block, dim=1)
            outputs = {**outputs, "compressed": average}
        terms = [gates[..., BRANCHES.index(name), None] * o for name, o in outputs.items()]
        return torch.stack(terms).sum(0)
