from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from mosaic_core.errors import ConfigurationError
from mosaic_core.model.checkpoint import load_model, parameter_shapes, untrained, version_of
from mosaic_core.model.config import Ablation, ModelConfig


def run(config: ModelConfig, z: float = 1.0) -> torch.Tensor:
    torch.manual_seed(0)
    channels = len(config.channel_set)
    static = torch.randn(*config.lat_lon.shape, 3)
    file = untrained(config, torch.zeros(channels), torch.ones(channels), static)
    model = load_model(config, file, version_of(config, file), torch.device("cpu"))
    states = torch.randn(1, config.history, *config.lat_lon.shape, channels)
    with torch.no_grad():
        return model.network(states, torch.zeros(1, 2), torch.full((1, config.noise_dim), z))


@pytest.fixture
def demo() -> ModelConfig:
    return ModelConfig.load("demo")


@pytest.mark.parametrize("name", get_args(Ablation))
def test_each_ablation_runs_and_differs_from_the_model(demo: ModelConfig, name: Ablation) -> None:
    plain, ablated = run(demo), run(replace(demo, ablations=(name,)))
    assert ablated.shape == plain.shape
    assert torch.isfinite(ablated).all()
    assert not torch.allclose(ablated, plain)


def test_without_perturbation_noise_has_no_way_in(demo: ModelConfig) -> None:
    config = replace(demo, ablations=("deterministic",))
    assert torch.equal(run(config, z=1.0), run(config, z=-1.0))
    assert not torch.equal(run(demo, z=1.0), run(demo, z=-1.0))
    assert not any("noise" in name for name in parameter_shapes(config))


def test_compress_first_never_sees_the_fine_mesh_and_keeps_the_depth(demo: ModelConfig) -> None:
    config = replace(demo, ablations=("compress_first",))
    assert [stage.nside for stage in config.trunk] == [8]
    depth = sum(s.encoder_depth + s.decoder_depth for s in demo.stages)
    assert sum(s.encoder_depth + s.decoder_depth for s in config.trunk) == depth
    with pytest.raises(ConfigurationError, match="two stages"):
        replace(demo, stages=demo.stages[:1], ablations=("compress_first",))


@pytest.mark.parametrize(("name", "share"), [("latlon_blocks", 1.0), ("dense", 1.0)])
def test_an_ablated_model_has_nearly_as_many_weights(
    demo: ModelConfig, name: Ablation, share: float
) -> None:
    def count(config: ModelConfig) -> int:
        return sum(torch.Size(shape).numel() for shape in parameter_shapes(config).values())

    assert count(replace(demo, ablations=(name,))) == pytest.approx(share * count(demo), rel=0.02)
