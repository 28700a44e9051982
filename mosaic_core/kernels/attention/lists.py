"""Lists of key blocks: chosen by score, joined with the local group, and inverted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mosaic_core.kernels import dispatch
from mosaic_core.kernels.dispatch import Backend

PIECE = 32
"""Most query blocks in one piece of an inverted list."""

MOST_KEY_BLOCKS = 8192
"""Longest row of scores that the triton kernel holds."""


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


class InvertedLists(NamedTuple):
    """Which query blocks attend to each key block, and how the work on them is cut.

    A column is a (batch, kv head, key block), numbered in this order. Everything is int32.

    Attributes:
        queries: (entry,) query blocks, column after column, ascending within each.
        kinds: (entry,) 0 for an entry that is local only, 1 for both, 2 for selected only.
        offsets: (column + 1,) where each column begins in the two above; what follows the last
            column is padding.
        pieces: (piece, 3): column, first entry and end of each run of at most `PIECE` entries.
            Every column has at least one piece; surplus pieces, at the end, are of column -1.
        piece_offsets: (column + 1,) where the pieces of each column begin.
    """

    queries: Tensor
    kinds: Tensor
    offsets: Tensor
    pieces: Tensor
    piece_offsets: Tensor


def select(
    scores: Tensor, count: int, local_blocks: int, backend: Backend | None = None
) -> JointLists:
    """The `count` best key blocks of each query block, joined with its local group.

    Args:
        scores: (batch, query block, kv head, key block), as many key blocks as query blocks. Of
            equal scores the lower key block is better; a NaN counts as minus infinity.
        count: blocks selected.
        local_blocks: blocks in a local group; groups are consecutive runs.
        backend: `triton` does it in one launch; another one is `joint_lists(top_blocks(...))`;
            None takes the best that supports the scores.

    Raises:
        DeviceError: the backend asked for does not support these scores.
        ValueError: groups that do not tile the blocks, or more selected than there are.
    """
    blocks, key_blocks = scores.shape[1], scores.shape[3]
    if key_blocks != blocks or blocks % local_blocks or not 0 <= count <= blocks:
        raise ValueError(f"{count} blocks, groups of {local_blocks}, scores {tuple(scores.shape)}")
    limits = None
    if blocks > MOST_KEY_BLOCKS:
        limits = f"{blocks} key blocks are over {MOST_KEY_BLOCKS}"
    if dispatch.choose("selection of blocks", scores, backend, limits) == "triton":
        from mosaic_core.kernels.attention.triton import select as triton_select

        return triton_select.select(scores.detach(), count, local_blocks)
    return joint_lists(top_blocks(scores.detach(), count), local_blocks)


def top_blocks(scores: Tensor, count: int) -> Tensor:
    """The `count` highest of the last axis, best first; of equal ones the lower index.

    Args:
        scores: (batch, query block, kv head, key block). A NaN counts as minus infinity.

    Returns:
        (batch, query block, kv head, count), int64.
    """
    known = scores.masked_fill(scores.isnan(), -torch.inf)
    return known.sort(dim=-1, descending=True, stable=True).indices[..., :count]


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


def inverted(joint: JointLists, key_blocks: int) -> InvertedLists:
    """The same pairs by key block: for the gradients of keys and values.

    Sizes depend on shapes only, so nothing waits for the device.

    Args:
        joint: lists of the query blocks.
        key_blocks: how many key blocks there are.
    """
    batch, blocks, kv_heads, listed = joint.blocks.shape
    device, columns = joint.blocks.device, batch * kv_heads * key_blocks
    place = torch.arange(listed, device=device)
    kind = (place >= joint.ends[..., :1]).int() + (place >= joint.ends[..., 1:2]).int()
    head = torch.arange(batch * kv_heads, device=device).view(batch, 1, kv_heads, 1)
    used = place < joint.ends[..., 2:]
    column = torch.where(used, head * key_blocks + joint.blocks, columns).flatten()
    ordered, order = column.sort(stable=True)
    offsets = torch.searchsorted(ordered, torch.arange(columns + 1, device=device))
    pieces, piece_offsets = _pieces(offsets, columns + len(column) // PIECE)
    return InvertedLists(
        queries=(order // (kv_heads * listed) % blocks).int(),
        kinds=kind.flatten()[order],
        offsets=offsets.int(),
        pieces=pieces.int(),
        piece_offsets=piece_offsets.int(),
    )


def _pieces(offsets: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Each column in as few pieces as `PIECE` allows, of equal length up to one entry."""
    columns, counts = len(offsets) - 1, offsets.diff()
    parts = ((counts + PIECE - 1) // PIECE).clamp(min=1)
    piece_offsets = torch.cat((parts.new_zeros(1), parts.cumsum(0)))
    piece = torch.arange(most, device=offsets.device)
    column = torch.searchsorted(piece_offsets, piece, right=True) - 1
    real, at = column < columns, column.clamp(max=columns - 1)
    part = piece - piece_offsets[at]
    cuts = [offsets[at] + counts[at] * (part + i) // parts[at] for i in (0, 1)]
    first, end = (torch.where(real, cut, 0) for cut in cuts)
    return torch.stack((torch.where(real, column, -1), first, end), dim=-1), piece_offsets
