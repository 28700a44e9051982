"""What a recipe would do, found out without doing it: sizes, windows, updates, memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mosaic_core.model.config import ModelConfig
from mosaic_core.model.network import Block, Mosaic
from mosaic_core.training.beginning import open_windows
from mosaic_core.training.recipe import Phase, Recipe

_PARAMETER_BYTES = 4 * 5
"""Of a parameter: weight, gradient, two moments of AdamW, running mean; all float32."""


@dataclass(frozen=True)
class Activations:
    """Bytes that one step of one member keeps for the backward pass.

    Attributes:
        outside: of all but the blocks.
        blocks: of each block.
        inputs: of the input of each block.
        states: of the states that a step starts from.
    """

    outside: int
    blocks: tuple[int, ...]
    inputs: tuple[int, ...]
    states: int

    def peak(self, steps: int, recompute: bool) -> int:
        """Bytes at the end of the forward pass, or while one block is computed again."""
        if not recompute:
            return steps * (self.outside + sum(self.blocks))
        one = self.outside + sum(self.inputs) + max(self.blocks)
        return one + (steps * self.states if steps > 1 else 0)


@dataclass(frozen=True)
class Plan:
    """What a recipe would do on `processes` processes.

    Attributes:
        training, validation: initial times in the archive's periods.
        memory: bytes on each process in each phase, all in float32.
        memory_half: the same with activations of two bytes; the truth of half precision lies
            between the two, for norms, softmax and states stay float32.
    """

    recipe: Recipe
    processes: int
    parameters: int
    training: int
    validation: int
    memory: tuple[int, ...]
    memory_half: tuple[int, ...]

    @property
    def lines(self) -> list[str]:
        recipe = self.recipe
        windows = recipe.position(recipe.updates)
        out = [
            f"model       {recipe.model}, {self.parameters:,} parameters",
            f"data        {recipe.data.inputs}: {self.training} initial times of training, "
            f"{self.validation} of validation",
            f"updates     {recipe.updates}, {windows} windows "
            f"({windows / self.training:.1f} times each initial time)",
        ]
        for phase, full, half in zip(recipe.phases, self.memory, self.memory_half, strict=True):
            size = f"about {full / 1e9:.1f} GB"
            if recipe.precision != "float32":
                size = f"between {half / 1e9:.1f} and {full / 1e9:.1f} GB"
            out.append(
                f"phase       {phase.updates} updates, rollout {phase.rollout}, "
                f"{recipe.members_of(phase)} members, batch {phase.batch} on "
                f"{self.processes} processes, learning rate {phase.learning_rate:g}: {size} on each"
            )
        return out


def plan(recipe: Recipe, processes: int = 1) -> Plan:
    """Open the archive and count; no weights are made and no device is touched.

    Raises:
        ConfigurationError, AnalysisMissing, AnalysisUnreadable: what would end the training too.
    """
    config = ModelConfig.load(recipe.model)
    shares = [recipe.share(phase, processes) for phase in recipe.phases]
    train, validation = open_windows(recipe, config)
    static = torch.zeros((*config.lat_lon.shape, len(config.static)))
    with torch.device("meta"):
        network = Mosaic(config, static)
    count = sum(p.numel() for p in network.parameters())

    def memory(dtype: torch.dtype) -> tuple[int, ...]:
        found = activations(network, dtype)

        def of(phase: Phase, share: int) -> int:
            peak = found.peak(phase.rollout, recipe.recompute)
            return _PARAMETER_BYTES * count + share * recipe.members_of(phase) * peak

        return tuple(of(phase, s) for phase, s in zip(recipe.phases, shares, strict=True))

    return Plan(
        recipe, processes, count, len(train.times), len(validation.times),
        memory(torch.float32), memory(torch.bfloat16),
    )  # fmt: skip


def activations(network: Mosaic, dtype: torch.dtype) -> Activations:
    """Measured on the meta device: shapes are computed, numbers are not.

    The network is left on that device.
    """
    config = network.config
    network = network.to("meta").to(dtype)
    states = torch.empty(
        (1, config.history, *config.lat_lon.shape, len(config.channel_set)),
        dtype=dtype, device="meta",
    )  # fmt: skip
    phases = torch.empty((1, 2), dtype=dtype, device="meta")
    z = torch.empty((1, config.noise_dim), dtype=dtype, device="meta")
    counter = _Counter(network)
    with counter.counting(), torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda x: x):
        out = network(states, phases, z if config.perturbed else None)
    del out
    return Activations(
        counter.outside, tuple(counter.blocks), tuple(counter.inputs), _bytes(states)
    )


class _Counter:
    """Sums up what autograd saves, apart for each block; parameters and tables do not count."""

    def __init__(self, network: Mosaic) -> None:
        self.network = network
        own = (*network.parameters(), *network.buffers())
        self._kept: list[Tensor] = list(own)
        self._seen = {tensor.untyped_storage()._cdata for tensor in own}
        self._inside = False
        self.outside = 0
        self.blocks: list[int] = []
        self.inputs: list[int] = []

    def pack(self, x: Tensor) -> Tensor:
        key = x.untyped_storage()._cdata
        if key not in self._seen:
            self._seen.add(key)
            self._kept.append(x)
            if self._inside:
                self.blocks[-1] += _bytes(x)
            else:
                self.outside += _bytes(x)
        return x

    @contextmanager
    def counting(self) -> Iterator[None]:
        handles = []
        for module in self.network.modules():
            if isinstance(module, Block):
                handles.append(module.register_forward_pre_hook(self._enter))
                handles.append(module.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: torch.nn.Module, given: tuple[Any, ...]) -> None:
        self._inside = True
        self.blocks.append(0)
        self.inputs.append(_bytes(given[0]))

    def _leave(self, module: torch.nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
        self._inside = False


def _bytes(x: Tensor) -> int:
    return x.untyped_storage().nbytes()
