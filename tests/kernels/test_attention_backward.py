from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mosaic_core.kernels.attention import lists
from mosaic_core.kernels.attention.gated import gated_attention
from mosaic_core.kernels.attention.lists import JointLists
from tests.closeness import max_rel

pytest.importorskip("triton")

NAMES = ("q", "k", "v", "logits", "compressed")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not written is NaN; -1 in 64 bits is two of them."""
    empty = torch.empty

    def poison(*shape: Any, **given: Any) -> Tensor:
        found = empty(*shape, **given)
        return found.fill_(torch.nan if found.is_floating_point() else -1)

    monkeypatch.setattr(torch, "empty", poison)


def inputs_of(
    batch: int, heads: int, kv_heads: int, block: int, blocks: int, width: int
) -> list[Tensor]:
    torch.manual_seed(heads * block)
    tokens = block * blocks
    return [
        torch.randn(batch, tokens, heads, width),
        torch.randn(batch, tokens, kv_heads, width),
        torch.randn(batch, tokens, kv_heads, width),
        torch.randn(batch, tokens, heads, 3),
        torch.randn(batch, blocks, heads, width),
    ]


def gradients(
    inputs: list[Tensor],
    dout: Tensor,
    selected: Tensor | JointLists,
    block: int,
    local_blocks: int,
    backend: Any = "triton",
) -> tuple[Tensor, ...]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    q, k, v, logits, compressed = leaves
    out = gated_attention(
        q, k, v, logits, compressed, selected,
        block_size=block, local=local_blocks * block, backend=backend,
    )  # fmt: skip
    return torch.autograd.grad(out, leaves, dout)


def close_to_twin(
    inputs: list[Tensor], selected: Tensor, block: int, local_blocks: int, within: float
) -> None:
    dout = torch.randn(inputs[0].shape).to(inputs[0].dtype)
    found = gradients(inputs, dout, selected, block, local_blocks)
    exact = [x.double() for x in inputs]
    expected = gradients(exact, dout.double(), selected, block, local_blocks, "reference")
    for name, given, one, twin in zip(NAMES, inputs, found, expected, strict=True):
        assert one.dtype == given.dtype
        assert max_rel(one.float(), twin) <= within, name


def some(batch: int, blocks: int, kv_heads: int, count: int) -> Tensor:
    return torch.rand(batch, blocks, kv_heads, blocks).argsort(-1)[..., :count]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "block", "blocks", "width", "local", "count"),
    [
        (1, 6, 2, 16, 4, 16, 2, 2),
        (3, 3, 1, 48, 2, 16, 1, 1),
        (1, 2, 1, 72, 2, 32, 1, 1),
        (1, 1, 1, 128, 2, 64, 1, 1),
        (1, 2, 2, 16, 2, 128, 1, 2),
    ],
)
def test_gradients_agree_with_those_of_the_twin(
    batch: int, heads: int, kv_heads: int, block: int, blocks: int, width: int,
    local: int, count: int, dtype: torch.dtype,
) -> None:  # fmt: skip
    inputs = [x.to(dtype) for x in inputs_of(batch, heads, kv_heads, block, blocks, width)]
    selected = some(batch, blocks, kv_heads, count)
    close_to_twin(inputs, selected, block, local, 3e-6 if dtype == torch.float32 else 3e-3)


@pytest.mark.parametrize("overlap", ["none", "full", "nothing selected"])
def test_gradients_whatever_the_branches_share(overlap: str) -> None:
    inputs = inputs_of(1, 4, 1, 16, 4, 16)
    near = torch.tensor([[0, 1], [0, 1], [2, 3], [2, 3]])
    far = near.flip(0)
    selected = {"none": far, "full": near, "nothing selected": near[:, :0]}[overlap]
    selected = selected[None, :, None]
    if overlap == "nothing selected":
        dout = torch.randn(inputs[0].shape)
        found = gradients(inputs, dout, selected, 16, 2)
        # A branch of nothing is zero: its gate alone still has a gradient.
        twin = [x.double().requires_grad_() for x in inputs]
        q, k, v, logits, compressed = twin
        of_all = gated_attention(
            q, k, v, logits, compressed, near[None, :, None], block_size=16, local=32
        )
        gates = torch.softmax(logits, -1)
        means = compressed.repeat_interleave(16, dim=1)
        mixed = gates[..., 1:2] * means
        local = (of_all - mixed) / (gates[..., :1] + gates[..., 2:])
        out = gates[..., :1] * local + mixed
        expected = torch.autograd.grad(out, twin, dout.double())
        for name, one, exact in zip(NAMES, found, expected, strict=True):
            assert max_rel(one, exact) <= 3e-6, name
    else:
        close_to_twin(inputs, selected, 16, 2, 3e-6)


def test_gradients_of_columns_in_pieces_and_the_same_bits_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lists, "PIECE", 2)
    inputs = inputs_of(1, 1, 1, 16, 5, 16)
    selected = torch.tensor([3]).expand(1, 5, 1, 1)
    pieces = lists.inverted(lists.joint_lists(selected, 1), 5).piece_offsets.diff()
    assert pieces.tolist() == [1, 1, 1, 3, 1]
    dout = torch.randn(inputs[0].shape)
    runs = [gradients(inputs, dout, selected, 16, 1) for _ in range(2)]
    exact = [x.double() for x in inputs]
    expected = gradients(exact, dout.double(), selected, 16, 1, "reference")
    for name, first, second, twin in zip(NAMES, *runs, expected, strict=True):
        assert torch.equal(first, second), name
        assert max_rel(first, twin) <= 3e-6, name


def test_a_key_block_that_nobody_weighs_has_a_gradient_of_exactly_zero() -> None:
    inputs = inputs_of(1, 1, 1, 16, 3, 16)
    inputs[3] = torch.tensor([-1e4, 0.0, 0.0]).expand_as(inputs[3])  # local gates of 0
    selected = torch.tensor([0, 2]).expand(1, 3, 1, 2)
    _, k, v, _, _ = gradients(inputs, torch.randn(inputs[0].shape), selected, 16, 1)
    for found in (k, v):
        assert torch.equal(found[:, 16:32], torch.zeros(1, 16, 1, 16))
        assert (found[:, :16].abs() > 0).any()


def test_a_key_block_on_no_list_has_a_gradient_of_exactly_zero() -> None:
    from mosaic_core.kernels.attention.triton import backward
    from mosaic_core.kernels.attention.triton.forward import Saved

    inputs = inputs_of(1, 2, 1, 16, 3, 16)
    joint = JointLists(
        torch.zeros(1, 3, 1, 2, dtype=torch.int32),
        torch.tensor([0, 0, 1], dtype=torch.int32).expand(1, 3, 1, 3),
    )
    q, k, v, logits, compressed = inputs
    lse = torch.zeros(q.shape[:3])
    saved = Saved(torch.zeros_like(q), torch.randn(q.shape), lse - torch.inf, lse)
    found = backward.gated_attention_gradients(
        torch.randn(q.shape), q, k, v, logits, compressed, joint, saved, 16
    )
    for one in (found.k, found.v):
        assert torch.equal(one[:, 16:], torch.zeros(1, 32, 1, 16))
        assert (one[:, :16].abs() > 0).any()
    assert all(torch.isfinite(one).all() for one in found)


def test_gradients_reach_strided_inputs_of_mixed_types() -> None:
    torch.manual_seed(1)
    joined = torch.randn(2, 32, 6, 16).half()
    logits, compressed = torch.randn(2, 32, 4, 3), torch.randn(2, 2, 4, 16).half()
    selected = some(2, 2, 1, 1)

    def run(backend: Any, dtype: torch.dtype | None = None) -> list[Tensor]:
        leaves = [x.to(dtype or x.dtype).requires_grad_() for x in (joined, logits, compressed)]
        q, k, v = leaves[0][:, :, :4], leaves[0][:, :, 4:5], leaves[0][:, :, 5:]
        out = gated_attention(
            q, k, v, leaves[1], leaves[2], selected, block_size=16, local=16, backend=backend
        )
        return list(torch.autograd.grad(out.sum(), leaves))

    for given, one, twin in zip(
        (joined, logits, compressed),
        run("triton"),
        run("reference", torch.float64),
        strict=True,
    ):
        assert one.dtype == given.dtype
        assert max_rel(one.float(), twin) <= 3e-3


@pytest.mark.parametrize("case", ["r1", "r4d64"])
def test_gradients_of_the_selected_branch_are_the_published_ones(golden: Path, case: str) -> None:
    with np.load(golden / "ops/sparse_attention.npz") as arrays:
        given = {
            name.removeprefix(f"{case}/"): torch.from_numpy(np.array(value))
            for name, value in arrays.items()
            if name.startswith(f"{case}/")
        }
    q, k, v = (given[name] for name in "qkv")
    block = int(given["block_size"])
    batch, tokens, heads, width = q.shape
    # Gates of 0 for the two other branches.
    logits = torch.tensor([-1e4, -1e4, 0.0]).expand(batch, tokens, heads, 3)
    compressed = torch.zeros(batch, tokens // block, heads, width)
    found = gradients(
        [q, k, v, logits, compressed], given["grad_out"], given["indices"].long(), block, 1
    )
    for name, one in zip("qkv", found, strict=False):
        assert max_rel(one, given[f"grad_{name}"]) <= 5e-6
