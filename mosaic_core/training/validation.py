"""Scores of the model as it stands, on windows it never saw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from mosaic_core.training.loss import fair_crps
from mosaic_core.training.objective import Objective, step_phases, window_noise
from mosaic_core.training.recipe import Recipe
from mosaic_core.training.windows import Windows

HEADLINES: Final = (
    "geopotential_500", "temperature_850", "u_component_of_wind_850", "mean_sea_level_pressure",
    "2m_temperature",
)  # fmt: skip
_SEED: Final = 1 << 32


@dataclass(frozen=True)
class Scores:
    """By step: weighted fair CRPS in units of a step's change, and headline channels.

    `rmse` of the ensemble mean, `persistence` and `spread` (with the factor of a finite ensemble)
    in physical units, each channel -> one value a step.
    """

    crps: list[float]
    rmse: dict[str, list[float]]
    spread: dict[str, list[float]]
    persistence: dict[str, list[float]]

    def as_dict(self) -> dict[str, object]:
        return {**vars(self)}


def validate(
    objective: Objective, weights: dict[str, Tensor], windows: Windows, recipe: Recipe
) -> Scores:
    """Roll out an ensemble from windows spread evenly over the period, with `weights`."""
    count = min(recipe.validation_windows, len(windows.times))
    times = [windows.times[int(i)] for i in np.linspace(0, len(windows.times) - 1, count)]
    config, steps = objective.network.config, recipe.validation_steps
    headlines: list[str] = [name for name in HEADLINES if name in config.channel_set.names]
    chosen = [config.channel_set.names.index(name) for name in headlines]
    crps = np.zeros(steps)
    squares = np.zeros((3, steps, len(chosen)))
    members = recipe.validation_members if config.perturbed else 1
    with swapped(objective, weights), torch.no_grad():
        for i, time in enumerate(times):
            window = windows.read(time, steps)
            noise = window_noise(recipe.seed, _SEED + i, members, steps, config.noise_dim)
            phases = step_phases(objective.network, [time], steps)
            device = objective.mean.device
            states = window.history.to(device).expand(members, -1, -1, -1, -1)
            last = states[0, -1]
            for step in range(steps):
                now = phases[0, step].to(device).expand(members, -1)
                following = objective.step(states, now, noise[:, step].to(device))
                target = window.targets[step].to(device)
                scaled = fair_crps(following / objective.change, target / objective.change)
                crps[step] += float((scaled * objective.area * objective.weight).mean())
                mean = following.mean(0)
                spread = (
                    following.var(0) * (members + 1) / members
                    if members > 1
                    else torch.zeros_like(mean)
                )
                for row, field in enumerate(((mean - target) ** 2, spread, (last - target) ** 2)):
                    weighted = (field[..., chosen] * objective.area).mean((0, 1))
                    squares[row, step] += weighted.double().cpu().numpy()
                states = torch.cat((states[:, 1:], following[:, None]), dim=1)
    roots = np.sqrt(squares / count)
    tables = [
        {name: roots[row, :, k].tolist() for k, name in enumerate(headlines)} for row in range(3)
    ]
    return Scores((crps / count).tolist(), *tables)


@contextmanager
def swapped(objective: Objective, weights: dict[str, Tensor]) -> Iterator[None]:
    """The network with other weights, for as long as it lasts."""
    own = {k: v.detach().clone() for k, v in objective.network.named_parameters()}

    def put(values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in objective.network.named_parameters():
                value.copy_(values[name])

    objective.network.eval()
    put(weights)
    try:
        yield
    finally:
        put(own)
        objective.network.train()
