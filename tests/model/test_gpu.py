"""What needs a CUDA device; skipped without one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mosaic_core.kernels.attention.sparse import block_sparse_attention
from tests.closeness import max_rel
from tests.model import golden_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("device", ["cuda:0", "cuda:1"])
def test_triton_kernel_agrees_with_its_twin(device: str) -> None:
    if int(device[-1]) >= torch.cuda.device_count():
        pytest.skip(f"no {device}")
    torch.manual_seed(0)
    q = torch.randn(3, 1024, 12, 64, dtype=torch.float16, device=device)
    k, v = (torch.randn(3, 1024, 3, 64, dtype=torch.float16, device=device) for _ in "kv")
    lists = torch.rand(3, 8, 3, 8, device=device).argsort(-1)[..., :5]
    found = block_sparse_attention(q, k, v, lists, block_size=128, backend="triton")
    expected = block_sparse_attention(
        q.double(), k.double(), v.double(), lists, block_size=128, backend="reference"
    )
    assert max_rel(found.float().cpu(), expected.cpu()) <= 3e-3


@pytest.mark.parametrize("variant", golden_model.VARIANTS)
def test_forward_pass_on_the_device(golden: Path, variant: str) -> None:
    network = golden_model.load(golden, variant).network.to("cuda")
    given = golden_model.arrays(golden / variant / "forward.npz")
    states, times, z = (given[n].cuda() for n in ("x", "day_year_time", "z"))
    with torch.no_grad():
        exact = network(states[:, 0], times[:, 0], z)
        with torch.autocast("cuda", torch.float16):
            half = network(states[:, 0], times[:, 0], z).float()
    expected = given["output"].view(exact.shape)
    assert max_rel(exact.cpu(), expected) <= 1e-4
    assert max_rel(half.cpu(), expected) <= 0.2
