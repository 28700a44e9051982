"""What needs a CUDA device and compiled kernels (`make test-gpu`); skipped without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from mosaic_core.ensemble.outgoing import Outgoing
from mosaic_core.kernels.attention.sparse import block_sparse_attention
from mosaic_core.model.forward import forward_of
from mosaic_core.model.fused import FusedNetwork
from tests.closeness import max_rel
from tests.model import golden_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(os.environ["TRITON_INTERPRET"] == "1", reason="`make test-gpu` runs it"),
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


@pytest.mark.parametrize("variant", golden_model.VARIANTS)
def test_fused_network_on_the_device(golden: Path, variant: str) -> None:
    model = golden_model.load(golden, variant)
    given = golden_model.arrays(golden / variant / "forward.npz")
    inputs = [given["x"][:, 0], given["day_year_time"][:, 0], given["z"]]
    exact = FusedNetwork(model.network, "float32")(*inputs)
    network, inputs = model.network.to("cuda"), [x.cuda() for x in inputs]
    for precision, bound in (("float16", 2e-3), ("bfloat16", 2e-2), ("int8", 0.1)):
        found = forward_of(network, precision)(*inputs)
        points = (found.cpu() - exact).square().mean(-1).sqrt() / exact.square().mean().sqrt()
        assert points.median() <= bound


def test_a_recorded_step_is_the_step(golden: Path) -> None:
    model = golden_model.load(golden, "hresmini")
    given = golden_model.arrays(golden / "hresmini" / "forward.npz")
    inputs = [given[n].cuda() for n in ("x", "day_year_time", "z")]
    states, times, z = inputs[0][:, 0], inputs[1][:, 0], inputs[2]
    network = model.network.to("cuda")
    plain, recorded = forward_of(network, "float16"), forward_of(network, "float16", recorded=True)
    for factor in (1.0, 0.5):
        expected = plain(factor * states, times, factor * z)
        assert torch.equal(recorded(factor * states, times, factor * z), expected)


def test_states_arrive_whole_while_others_are_made() -> None:
    into = torch.full((5, 7, 3, 4, 6), torch.nan)
    busy = torch.randn(4096, 4096, device="cuda")
    expected = []
    with Outgoing(torch.device("cuda")) as outgoing:
        for i in range(len(into[0])):
            state = torch.randn(3, 6, 4, 5)
            expected.append(state)
            on_device = state.cuda() + 0 * (busy @ busy).sum()  # not there yet when it is put
            outgoing.put(on_device, into[:, i])
            del on_device
            torch.full((3, 6, 4, 5), torch.nan, device="cuda")  # would take its memory
        outgoing.settle()
    for i, state in enumerate(expected):
        assert torch.equal(into[:, i], state.permute(3, 0, 2, 1))
