"""The network as a GPU runs it, by the twins of its kernels and by Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mosaic_core.errors import DeviceError
from mosaic_core.kernels.attention import lists
from mosaic_core.kernels.dispatch import forced_backend
from mosaic_core.model.checkpoint import LoadedModel
from mosaic_core.model.forward import forward_of, not_fused
from mosaic_core.model.fused import FusedNetwork, unsupported
from mosaic_core.model.fused import network as fused
from tests.closeness import max_rel, rms_rel
from tests.model import golden_model


@pytest.fixture(scope="module", params=golden_model.VARIANTS)
def model(golden: Path, request: pytest.FixtureRequest) -> LoadedModel:
    return golden_model.load(golden, request.param)


def inputs(golden: Path, model: LoadedModel) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    given = golden_model.arrays(golden / model.config.name / "forward.npz")
    return given["x"][:, 0], given["day_year_time"][:, 0], given["z"]


def test_fused_network_is_the_network(golden: Path, model: LoadedModel) -> None:
    given = inputs(golden, model)
    with torch.no_grad():
        expected = model.network.double()(*(x.double() for x in given))
    model.network.float()
    found = FusedNetwork(model.network, "float32")(*given)
    assert max_rel(found, expected) <= 2e-5


@pytest.mark.slow
def test_fused_network_is_the_network_through_triton(golden: Path, model: LoadedModel) -> None:
    pytest.importorskip("triton")
    given = inputs(golden, model)
    expected = FusedNetwork(model.network, "float32")(*given)
    with forced_backend("triton"):
        found = FusedNetwork(model.network, "float32")(*given)
    assert max_rel(found, expected) <= 2e-5


def test_float16_is_within_two_thousandths(
    golden: Path, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the lists of the exact run: a near tie that falls the other way is not rounding."""
    given = inputs(golden, model)
    chosen: list[lists.JointLists] = []

    def keep(scores: torch.Tensor, count: int, local_blocks: int) -> lists.JointLists:
        chosen.append(lists.select(scores, count, local_blocks))
        return chosen[-1]

    monkeypatch.setattr(fused, "select", keep)
    exact = FusedNetwork(model.network, "float32")(*given)
    monkeypatch.setattr(fused, "select", lambda *given: chosen.pop(0))
    assert rms_rel(FusedNetwork(model.network, "float16")(*given), exact) <= 2e-3
    assert not chosen


def test_eight_bits_stay_near(golden: Path, model: LoadedModel) -> None:
    given = inputs(golden, model)
    exact = FusedNetwork(model.network, "float32")(*given)
    found = rms_rel(FusedNetwork(model.network, "int8")(*given), exact)
    assert 1e-4 < found <= 0.1


def test_variants_without_a_fused_form_say_why(golden: Path, model: LoadedModel) -> None:
    assert unsupported(model.config) is None
    assert "dense" in (unsupported(replace(model.config, ablations=("dense",))) or "")
    stages = tuple(replace(stage, selected=0) for stage in model.config.stages)
    assert "no selected" in (unsupported(replace(model.config, stages=stages)) or "")


def test_a_cpu_runs_module_by_module_and_refuses_eight_bits(model: LoadedModel) -> None:
    assert "CUDA" in (not_fused(model.config, torch.device("cpu"), "float16") or "")
    assert forward_of(model.network, "float32") is model.network
    with pytest.raises(DeviceError, match="linear maps in 8 bits"):
        forward_of(model.network, "int8")
