"""The whole network with random weights, and its straightforward formulation."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu.measuring import Scale
from mosaic_core.kernels.dispatch import forced_backend
from mosaic_core.kernels.interpolation import reference
from mosaic_core.model import interpolation
from mosaic_core.model.checkpoint import (
    LoadedModel,
    ModelFile,
    load_model,
    parameter_shapes,
    version_of,
)
from mosaic_core.model.config import GridConfig, ModelConfig, StageConfig
from mosaic_core.model.network import Block, Mosaic

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

_TOGETHER = 4
"""Members whose gathered neighbours the straightforward interpolation holds at once."""


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


def straightforward(network: Mosaic, scale: Scale, compiled: bool) -> Step:
    """The network without our kernels, in float16: torch's attention and the gathers themselves.

    Selected key blocks are gathered for some query blocks at a time and neighbours for
    `_TOGETHER` members, as the whole would not fit; blocks of the trunk are compiled one by one.
    """
    half = copy.deepcopy(network).half()
    if compiled:
        for module in half.modules():
            if isinstance(module, Block):
                module.forward = scale.compiled(module.forward)  # type: ignore[method-assign]

    def step(states: Tensor, day_year: Tensor, z: Tensor | None) -> Tensor:
        with torch.no_grad(), _straightforward_kernels(scale, compiled):
            noise = None if z is None else z.half()
            return half(states.half(), day_year, noise)

    return step


@contextlib.contextmanager
def _straightforward_kernels(scale: Scale, compiled: bool) -> Iterator[None]:
    gather = reference.neighbour_attention
    gather = scale.compiled(gather) if compiled else gather

    def in_groups(
        kappa: Tensor, values: Tensor, near: Tensor, directions: Tensor, _: object
    ) -> Tensor:
        groups = zip(kappa.split(_TOGETHER), values.split(_TOGETHER), strict=True)
        return torch.cat([gather(k, v, near, directions) for k, v in groups])

    with (
        forced_backend("blocked"),
        mock.patch.object(interpolation, "neighbour_attention", in_groups),
    ):
        yield
