"""Attention of a block of the trunk: local, compressed and selected branches under gates."""

from __future__ import annotations

import torch
from torch import Tensor

from mosaic_core.kernels import dispatch
from mosaic_core.kernels.attention import autograd, blocked, reference
from mosaic_core.kernels.attention.lists import JointLists, joint_lists
from mosaic_core.kernels.dispatch import Backend


def gated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    logits: Tensor,
    compressed: Tensor,
    lists: Tensor | JointLists,
    *,
    block_size: int,
    local: int,
    backend: Backend | None = None,
) -> Tensor:
    """Sum of three branches, weighted by the softmax of their logits.

    The local branch is one softmax per query over its run of `local` tokens, the selected branch
    one over all tokens of the listed key blocks (zero where none is listed); both scale by
    width^-1/2. The compressed branch is given.

    Args:
        q: (batch, token, head, width), rotated.
        k, v: (batch, token, kv head, width); query head i uses kv head i // (heads / kv heads).
        logits: (batch, token, head, 3), of local, compressed and selected; their softmax is in
            float32 or wider.
        compressed: (batch, query block, head, width), output of the compressed branch for all
            queries of a block.
        lists: selected key blocks, (batch, query block, kv head, n), in any order, each once, or
            these joined with the local groups.
        block_size: tokens in a block; blocks are consecutive runs.
        local: tokens in a local group, a multiple of `block_size`.
        backend: `triton`, `blocked` or `reference`; None takes the best that supports the tensors.

    Returns:
        (batch, token, head, width), dtype of `q`.

    Raises:
        DeviceError: the backend asked for does not support these tensors.
        ValueError: shapes that do not fit together.
    """
    _check(q, k, v, logits, compressed, lists, block_size, local)
    chosen = dispatch.choose(
        "gated attention", q, backend, _limits(q, block_size), dispatch.slow_in_float32(q)
    )
    if chosen == "triton":
        from mosaic_core.kernels.attention.triton import forward

        joint = lists if isinstance(lists, JointLists) else joint_lists(lists, local // block_size)
        inputs = (q, k, v, logits, compressed)
        if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
            return autograd.gated_attention(*inputs, joint, block_size)
        out, _ = forward.gated_attention(*inputs, joint, block_size, save=False)
        return out
    twin = blocked if chosen == "blocked" else reference
    selected = _selected(lists, local // block_size) if isinstance(lists, JointLists) else lists
    return twin.gated_attention(q, k, v, logits, compressed, selected, block_size, local)


def _selected(joint: JointLists, local_blocks: int) -> Tensor:
    """The selected blocks of joint lists: they end where the list does."""
    count = joint.blocks.shape[3] - local_blocks
    place = joint.ends[..., :1] + torch.arange(count, device=joint.blocks.device)
    return joint.blocks.gather(3, place.long())


def _limits(q: Tensor, block_size: int) -> str | None:
    if block_size < 16:
        return f"blocks of {block_size} tokens are under 16"
    return dispatch.head_width(q.shape[-1])


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    logits: Tensor,
    compressed: Tensor,
    lists: Tensor | JointLists,
    block_size: int,
    local: int,
) -> None:
    batch, tokens, heads, width = q.shape
    kv_heads = k.shape[2]
    if k.shape != v.shape or k.shape != (batch, tokens, kv_heads, width) or heads % kv_heads:
        raise ValueError(f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}")
    if tokens % local or local % block_size:
        raise ValueError(f"{tokens} tokens in groups of {local}, these in blocks of {block_size}")
    blocks = tokens // block_size
    if logits.shape != (batch, tokens, heads, 3):
        raise ValueError(f"gate logits {tuple(logits.shape)} for q {tuple(q.shape)}")
    if compressed.shape != (batch, blocks, heads, width):
        raise ValueError(f"compressed branch {tuple(compressed.shape)} for {blocks} blocks")
    listed = lists.blocks if isinstance(lists, JointLists) else lists
    if listed.shape[:3] != (batch, blocks, kv_heads):
        raise ValueError(f"block lists {tuple(listed.shape)} for {blocks} blocks")
