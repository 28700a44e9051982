"""The whole network with random weights, and its inputs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.gpu.measuring import Scale
from mosaic_core.model.checkpoint import (
    LoadedModel,
    ModelFile,
    load_model,
    parameter_shapes,
    version_of,
)
from mosaic_core.model.config import GridConfig, ModelConfig, StageConfig

Step = Callable[[Tensor, Tensor, Tensor | None], Tensor]

TINY = ModelConfig(
    name="tiny",
    step_hours=6,
    history=2,
    neighbours=4,
    grid=GridConfig(nlon=12, nlat=7),
    channels=("2m_temperature", "mean_sea_level_pressure", "geopotential_500"),
    noise_dim=4,
    stages=(
        StageConfig(4, 32, 2, 1, 64, 16, 3, encoder_depth=1, decoder_depth=1, mlp_ratio=2.0),
        StageConfig(2, 64, 4, 2, 48, 16, 1, encoder_depth=1, mlp_ratio=2.0),
    ),
)


def configuration(scale: Scale, variant: str = "hres") -> ModelConfig:
    return ModelConfig.load(variant) if scale.name == "full" else TINY


def model(scale: Scale, variant: str = "hres") -> LoadedModel:
    """The published shape with random weights, or the tiny one."""
    return loaded(scale, configuration(scale, variant))


def loaded(scale: Scale, config: ModelConfig) -> LoadedModel:
    """Weights of unit gain, so that activations stay of order one; states are standard normal."""
    channels = len(config.channel_set)
    generator = torch.Generator(scale.device).manual_seed(0)

    def weight(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, device=scale.device) * (shape[1] ** -0.5)

    file = ModelFile(
        weights={name: weight(shape) for name, shape in parameter_shapes(config).items()},
        tables={},
        mean=torch.zeros(channels),
        std=torch.ones(channels),
        static=torch.randn(*config.lat_lon.shape, len(config.static)),
        metadata={},
    )
    return load_model(config, file, version_of(config, file), scale.device)


def inputs(scale: Scale, config: ModelConfig, members: int) -> tuple[Tensor, Tensor, Tensor]:
    """States, phases and noise of some members, float32, on the device."""
    shape = (members, config.history, *config.lat_lon.shape, len(config.channel_set))
    states = scale.randn(*shape, dtype=torch.float32)
    z = scale.randn(members, config.noise_dim, dtype=torch.float32)
    return states, torch.zeros(members, 2, device=scale.device), z
