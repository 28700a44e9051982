from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from mosaic_core.errors import DeviceError
from mosaic_core.kernels.attention.gated import gated_attention
from mosaic_core.kernels.attention.lists import joint_lists
from mosaic_core.kernels.dispatch import forced_backend
from tests.closeness import max_rel, rms_rel

TORCH_BACKENDS = ["reference", "blocked"]
CLOSE = {torch.float32: 3e-6, torch.float16: 3e-3}
AMPERE, HOPPER = (8, 0), (9, 0)
INTERPRETED = os.environ["TRITON_INTERPRET"] == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"


@pytest.fixture(autouse=True)
def _on_the_device() -> Iterator[None]:
    """On a GPU where there is one; else kernels are interpreted."""
    with torch.device(DEVICE):
        yield


def off(found: Tensor, expected: Tensor) -> float:
    return max_rel(found.detach().float().cpu(), expected.detach().cpu())


class Case(NamedTuple):
    """Sizes of one call; `overlap` blocks of the n selected lie in the query's own group."""

    batch: int
    kv_heads: int
    group: int
    block: int
    blocks: int
    local_blocks: int
    n: int
    overlap: int
    width: int = 16

    def lists(self) -> Tensor:
        """Lists in random order, (batch, query block, kv head, n)."""
        rank = torch.rand(self.batch, self.blocks, self.kv_heads, self.blocks)
        groups = torch.arange(self.blocks) // self.local_blocks
        inside = (groups[:, None] == groups)[None, :, None]
        own = rank.masked_fill(~inside, 2).argsort(-1)[..., : self.overlap]
        others = rank.masked_fill(inside, 2).argsort(-1)[..., : self.n - self.overlap]
        both = torch.cat((others, own), dim=-1)
        return both.gather(-1, torch.rand(both.shape).argsort(-1))

    def inputs(self, dtype: torch.dtype) -> Any:
        """q, k, v, logits and compressed, as slices of the rows of one projection."""
        heads, tokens = self.group * self.kv_heads, self.block * self.blocks
        shapes = [(heads, self.width), *2 * ((self.kv_heads, self.width),), (heads, 3)]
        used = sum(a * b for a, b in shapes)
        row = used + -used % 16 + 8  # a multiple of 8, not of 16
        joined = torch.randn(self.batch, tokens, row).to(dtype)
        parts = joined[..., :used].split([a * b for a, b in shapes], dim=-1)
        q, k, v, logits = (x.unflatten(-1, s) for x, s in zip(parts, shapes, strict=True))
        average = torch.randn(self.batch, self.blocks, heads, self.width).to(dtype)
        return q, k, v, logits, average

    @property
    def sizes(self) -> dict[str, Any]:
        return {"block_size": self.block, "local": self.block * self.local_blocks}


CASES = [
    pytest.param(Case(1, 1, 3, 16, 6, 2, 2, 0), id="no overlap"),
    pytest.param(Case(3, 1, 3, 32, 4, 2, 2, 1), id="some overlap"),
    pytest.param(Case(2, 2, 2, 16, 6, 3, 3, 3), id="the group is what is selected"),
    pytest.param(Case(1, 1, 5, 48, 4, 2, 1, 1), id="selected in the group"),
    pytest.param(Case(1, 2, 5, 16, 4, 2, 4, 2), id="everything selected"),
    pytest.param(Case(1, 1, 4, 32, 3, 1, 2, 0), id="one local block"),
    pytest.param(Case(2, 1, 1, 32, 3, 3, 2, 2), id="one group"),
    pytest.param(Case(3, 1, 3, 16, 4, 2, 0, 0), id="nothing selected"),
    pytest.param(Case(1, 1, 2, 128, 3, 1, 2, 1, 64), id="as published, but fewer"),
]


def exact(inputs: Any, lists: Tensor, case: Case) -> Tensor:
    doubled: Any = [x.double() for x in inputs]
    return gated_attention(*doubled, lists, **case.sizes, backend="reference")


@pytest.mark.parametrize(
    ("chip", "dtype"),
    [(AMPERE, torch.float32), (HOPPER, torch.float16)],
    ids=["pointers", "descriptors"],
)
@pytest.mark.parametrize("case", CASES)
def test_triton_kernel_agrees_with_its_twin(
    case: Case, chip: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from mosaic_core.kernels.attention.triton import forward

    if DEVICE == "cuda" and torch.cuda.get_device_capability() < chip:
        pytest.skip("an older chip")
    monkeypatch.setattr(forward, "capability", lambda x, interpreted: chip)
    torch.manual_seed(case.block)
    inputs, lists = case.inputs(dtype), case.lists()
    poisoned = torch.full(inputs[0].shape, torch.nan, dtype=dtype)
    joint = joint_lists(lists, case.local_blocks)
    found, saved = forward.gated_attention(*inputs, joint, case.block, save=False, out=poisoned)
    assert saved is None
    assert off(found, exact(inputs, lists, case)) <= CLOSE[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_blocked_backend_agrees_with_its_twin(case: Case, dtype: torch.dtype) -> None:
    torch.manual_seed(case.block)
    inputs, lists = case.inputs(dtype), case.lists()
    found = gated_attention(*inputs, lists, **case.sizes, backend="blocked")
    assert found.dtype == dtype
    assert off(found, exact(inputs, lists, case)) <= CLOSE[dtype]


@pytest.mark.parametrize("case", CASES[:3])
def test_what_is_saved_for_the_backward_pass(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    from mosaic_core.kernels.attention.triton import forward

    plain = Tensor.new_empty

    def poisoned(*given: Any, **options: Any) -> Tensor:
        buffer = plain(*given, **options)
        return buffer.fill_(torch.nan) if buffer.is_floating_point() else buffer

    monkeypatch.setattr(Tensor, "new_empty", poisoned)
    torch.manual_seed(0)
    inputs, lists = case.inputs(torch.float32), case.lists()
    joint = joint_lists(lists, case.local_blocks)
    out, saved = forward.gated_attention(*inputs, joint, case.block, save=True)
    assert saved is not None
    expected = dense_branches(inputs, lists, case)
    for name in saved._fields:
        assert off(getattr(saved, name), expected[name]) <= 3e-6, name
    assert off(out, exact(inputs, lists, case)) <= 3e-6


def dense_branches(inputs: Any, lists: Tensor, case: Case) -> dict[str, Tensor]:
    """Both branches by masks on the scores of all keys, in double precision."""
    q, k, v = (x.double() for x in inputs[:3])
    k, v = (x.repeat_interleave(case.group, dim=2) for x in (k, v))
    scores = torch.einsum("bthd,buhd->bthu", q, k) * case.width**-0.5
    token = torch.arange(q.shape[1])
    groups = token // (case.block * case.local_blocks)
    local = (groups[:, None] == groups)[None, :, None].expand(scores.shape)
    listed = torch.zeros(*lists.shape[:3], case.blocks, dtype=torch.bool).scatter(-1, lists, True)
    selected = listed.repeat_interleave(case.block, 1).repeat_interleave(case.block, -1)
    selected = selected.repeat_interleave(case.group, 2)
    found = {}
    for name, seen in (("local", local), ("selected", selected)):
        masked = scores.masked_fill(~seen, -torch.inf)
        found[f"o_{name}"] = torch.einsum("bthu,buhd->bthd", masked.softmax(-1), v)
        found[f"lse_{name}"] = masked.logsumexp(-1) / np.log(2)
    return found


def test_scores_and_gates_far_from_zero_stay_finite() -> None:
    pytest.importorskip("triton")
    case = Case(1, 1, 2, 16, 4, 2, 2, 1)
    torch.manual_seed(1)
    q, k, v, logits, average = case.inputs(torch.float32)
    inputs, lists = (q * 60, k * 60, v, logits * 300, average), case.lists()
    for backend in ("triton", "blocked"):
        found = gated_attention(*inputs, lists, **case.sizes, backend=backend)
        assert off(found, exact(inputs, lists, case)) <= 1e-4, backend


@pytest.mark.parametrize("backend", [*TORCH_BACKENDS, "triton"])
def test_joint_lists_stand_for_the_selected_ones(backend: Any) -> None:
    if backend == "triton":
        pytest.importorskip("triton")
    case = Case(2, 2, 1, 16, 4, 2, 2, 1)
    torch.manual_seed(2)
    inputs, lists = case.inputs(torch.float32), case.lists()
    joint = joint_lists(lists, case.local_blocks)
    with forced_backend(backend):
        found = gated_attention(*inputs, joint, **case.sizes)
        expected = gated_attention(*inputs, lists, **case.sizes)
    assert off(found, expected) <= 1e-6


@pytest.mark.parametrize("backend", TORCH_BACKENDS)
@pytest.mark.parametrize("case", ["r2", "r4"])
def test_gated_sum_is_the_published_one(golden: Path, case: str, backend: Any) -> None:
    with np.load(golden / "ops/gated_attention.npz") as arrays:
        given = {
            name.removeprefix(f"{case}/"): torch.tensor(np.array(value))
            for name, value in arrays.items()
            if name.startswith(f"{case}/")
        }
    block, local = int(given["sparse_block_size"]), int(given["block_attn_size"])
    gates = given["gates"].permute(1, 2, 3, 0)
    average = given["o_cmp_blocks"]
    found = gated_attention(
        given["q"], given["k"], given["v"], gates.log(), average, given["indices"],
        block_size=block, local=local, backend=backend,
    )  # fmt: skip
    branches = (given["o_local"], average.repeat_interleave(block, 1), given["o_slc"])
    expected = sum(gates[..., i, None] * branch for i, branch in enumerate(branches))
    assert max_rel(found.cpu(), expected.cpu()) <= 3e-6
    assert rms_rel(found.cpu(), expected.cpu()) <= 3e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocked_backend_has_the_gradients_of_its_twin(dtype: torch.dtype) -> None:
    case = Case(2, 1, 2, 16, 4, 2, 2, 1)
    torch.manual_seed(3)
    inputs, lists = case.inputs(torch.float64), case.lists()
    slopes = {}
    kinds: dict[Any, torch.dtype] = {"blocked": dtype, "reference": torch.float64}
    for backend, kind in kinds.items():
        leaves: Any = [x.detach().to(kind).requires_grad_() for x in inputs]
        out = gated_attention(*leaves, lists, **case.sizes, backend=backend)
        slopes[backend] = torch.autograd.grad(out.square().sum(), leaves)
    close = 3e-6 if dtype == torch.float32 else 1e-13
    for found, expected in zip(*slopes.values(), strict=True):
        assert max_rel(found.cpu(), expected.cpu()) <= close


def test_a_launch_fits_its_chip() -> None:
    pytest.importorskip("triton")
    from mosaic_core.kernels.attention.triton.forward import Launch, launch

    assert launch(AMPERE, 512, 128, 64, exact=False) == Launch(128, 64, 8, 3, False)
    assert launch(HOPPER, 512, 128, 64, exact=False) == Launch(128, 64, 4, 3, True)
    assert launch((10, 0), 512, 128, 64, exact=False) == Launch(128, 64, 8, 3, True)
    assert launch((12, 0), 512, 128, 64, exact=False) == Launch(128, 64, 8, 3, False)
    # 48 keys are no multiple of a tile: their rest is masked, which a descriptor cannot.
    assert not launch(HOPPER, 512, 48, 64, exact=False).descriptors


def test_what_does_not_fit_together_is_refused() -> None:
    case = Case(1, 1, 2, 16, 4, 2, 2, 1)
    q, k, v, logits, average = case.inputs(torch.float32)
    lists = case.lists()
    with pytest.raises(ValueError, match="groups of 24, these in blocks of 16"):
        gated_attention(q, k, v, logits, average, lists, block_size=16, local=24)
    with pytest.raises(ValueError, match="k"):
        gated_attention(q, k[:, :16], v, logits, average, lists, **case.sizes)
    with pytest.raises(ValueError, match="gate logits"):
        gated_attention(q, k, v, logits[..., :2], average, lists, **case.sizes)
    with pytest.raises(ValueError, match="compressed branch"):
        gated_attention(q, k, v, logits, average[:, 1:], lists, **case.sizes)
    with pytest.raises(ValueError, match="block lists"):
        gated_attention(q, k, v, logits, average, lists[:, 1:], **case.sizes)
    with pytest.raises(DeviceError, match="blocks of 8 tokens are under 16"):
        gated_attention(
            q, k, v, logits, average.repeat(1, 2, 1, 1), lists.repeat(1, 2, 1, 1),
            block_size=8, local=32, backend="triton",
        )  # fmt: skip
