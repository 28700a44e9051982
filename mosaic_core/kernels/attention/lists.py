"""Lists of key blocks: chosen by score, joined with the local group, and inverted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class JointLists(NamedTuple):
    """What every query block attends to, locally and by selection, each key block once.

    Attributes:
        blocks: (batch, query block, kv head, local + selected), int32: key blocks that are local
            only, then those both local and selected, then those selected only, ascending within
            each; the rest, as many as are both, is -1.
        ends: (batch, query block, kv head, 3), int32: where each of the three ends.
    """

    blocks: Tensor
    ends: Tensor


def top_blocks(scores: Tensor, count: int) -> Tensor:
    """The `count` highest of the last axis, best first; of equal ones the lower index.

    Args:
        scores: (batch, query block, kv head, key block).

    Returns:
        (batch, query block, kv head, count), int64.
    """
    return scores.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def joint_lists(selected: Tensor, local_blocks: int) -> JointLists:
    """Join the selected blocks with those of the local group of each query block.

    Args:
        selected: (batch, query block, kv head, n) key blocks, in any order, each once.
        local_blocks: blocks in a local group; groups are consecutive runs.
    """
    batch, blocks, kv_heads, _ = selected.shape
    first = torch.arange(blocks, device=selected.device) // local_blocks * local_blocks
    group = first[:, None] + torch.arange(local_blocks, device=selected.device)
    local = group[None, :, None].expand(batch, -1, kv_heads, -1)
    chosen = (local[..., None] == selected[..., None, :]).any(-1)
    inside = selected // local_blocks == first[None, :, None, None] // local_blocks
    # Classes 0 to 2 in order of the list, 3 for what the local half already names.
    classes = torch.cat((chosen.long(), torch.where(inside, 3, 2)), dim=-1)
    named = torch.cat((local, selected.long()), dim=-1)
    order = (classes * blocks + named).sort(-1).values
    kept = torch.where(order < 3 * blocks, order % blocks, -1)
    ends = torch.stack([(classes <= c).sum(-1) for c in range(3)], dim=-1)
    return JointLists(kept.int(), ends.int())
