from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mosaic_core.errors import DeviceError
from mosaic_core.kernels import dispatch
from mosaic_core.kernels.attention.sparse import block_sparse_attention
from mosaic_core.kernels.dispatch import forced_backend
from mosaic_core.kernels.interpolation.neighbours import neighbour_attention
from tests.closeness import max_rel, rms_rel

CASES = ["r1", "r2", "r4", "r4d64"]
TORCH_BACKENDS = ["reference", "blocked"]


def load(golden: Path, case: str) -> dict[str, torch.Tensor]:
    with np.load(golden / "ops/sparse_attention.npz") as arrays:
        return {
            name.removeprefix(f"{case}/"): torch.from_numpy(np.array(value))
            for name, value in arrays.items()
            if name.startswith(f"{case}/")
        }


@pytest.mark.parametrize("backend", [*TORCH_BACKENDS, "triton"])
@pytest.mark.parametrize("case", CASES)
def test_selected_branch_is_the_published_one(golden: Path, case: str, backend: str) -> None:
    if backend == "triton":
        pytest.importorskip("triton")
    given = load(golden, case)
    found = block_sparse_attention(
        given["q"], given["k"], given["v"], given["indices"],
        block_size=int(given["block_size"]), backend=backend,  # type: ignore[arg-type]
    )  # fmt: skip
    assert max_rel(found, given["out"]) <= 3e-6
    assert rms_rel(found, given["out"]) <= 3e-6


@pytest.mark.parametrize("backend", TORCH_BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_gradients_of_the_selected_branch_are_the_published_ones(
    golden: Path, case: str, backend: str
) -> None:
    given = load(golden, case)
    inputs = [given[name].requires_grad_() for name in "qkv"]
    out = block_sparse_attention(
        *inputs,
        given["indices"],
        block_size=int(given["block_size"]),
        backend=backend,  # type: ignore[arg-type]
    )
    (out * given["grad_out"]).sum().backward()
    for name, tensor in zip("qkv", inputs, strict=True):
        assert max_rel(tensor.grad, given[f"grad_{name}"]) <= 5e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("batch", "heads", "kv_heads", "block", "blocks", "listed"),
    [(1, 3, 1, 16, 4, 4), (3, 4, 2, 32, 3, 1), (2, 3, 3, 48, 2, 2), (1, 4, 1, 64, 4, 3)],
)
def test_triton_kernel_agrees_with_its_twin(
    batch: int, heads: int, kv_heads: int, block: int, blocks: int, listed: int, dtype: torch.dtype
) -> None:
    pytest.importorskip("triton")
    from mosaic_core.kernels.attention.triton import forward

    torch.manual_seed(batch + heads)
    tokens = block * blocks
    q = torch.randn(batch, tokens, heads, 16).to(dtype)
    k, v = (torch.randn(batch, tokens, kv_heads, 16).to(dtype) for _ in range(2))
    lists = torch.rand(batch, blocks, kv_heads, blocks).argsort(-1)[..., :listed]
    poisoned = torch.full_like(q, torch.nan)
    found = forward.block_sparse_attention(q, k, v, lists, block, out=poisoned)
    expected = block_sparse_attention(
        q.double(), k.double(), v.double(), lists, block_size=block, backend="reference"
    )
    assert max_rel(found.float(), expected) <= (3e-6 if dtype == torch.float32 else 3e-3)


def test_triton_kernel_reads_strided_inputs() -> None:
    pytest.importorskip("triton")
    torch.manual_seed(0)
    joined = torch.randn(2, 64, 6, 16)
    q, k, v = joined[:, :, :4], joined[:, :, 4:5], joined[:, :, 5:]
    lists = torch.rand(2, 4, 1, 4).argsort(-1)[..., :2]
    found = block_sparse_attention(q, k, v, lists, block_size=16, backend="triton")
    expected = block_sparse_attention(q, k, v, lists, block_size=16, backend="reference")
    assert max_rel(found, expected) <= 3e-6


@pytest.mark.parametrize("batch", [1, 3])
def test_neighbour_attention_agrees_with_its_twin(batch: int) -> None:
    torch.manual_seed(0)
    kappa, values = torch.randn(batch, 50, 4, 3).double(), torch.randn(batch, 50, 4, 8).double()
    neighbours, chords = torch.randint(0, 50, (70, 6)), torch.randn(70, 6, 3).double()
    for x in (kappa, values):
        x.requires_grad_()
    found = neighbour_attention(kappa, values, neighbours, chords)
    slopes = torch.autograd.grad(found.square().sum(), (kappa, values))
    expected = neighbour_attention(kappa, values, neighbours, chords, backend="reference")
    twins = torch.autograd.grad(expected.square().sum(), (kappa, values))
    assert max_rel(found.detach(), expected.detach()) <= 1e-14
    for slope, twin in zip(slopes, twins, strict=True):
        assert max_rel(slope, twin) <= 1e-13


def test_a_backend_that_cannot_run_is_refused_with_its_reason() -> None:
    q = torch.zeros(1, 64, 4, 24)
    lists = torch.zeros(1, 4, 4, 1, dtype=torch.int64)
    with forced_backend("triton"), pytest.raises(DeviceError, match="24 is not a power of two"):
        block_sparse_attention(q, q, q, lists, block_size=16)


def test_a_cpu_without_being_asked_takes_the_blocked_backend() -> None:
    assert dispatch.choose("attention", torch.zeros(1)) == "blocked"


def test_lists_that_do_not_fit_are_refused() -> None:
    q = torch.zeros(1, 64, 4, 16)
    with pytest.raises(ValueError, match="block list"):
        block_sparse_attention(q, q, q, torch.zeros(1, 3, 4, 1, dtype=torch.int64), block_size=16)
