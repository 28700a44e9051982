"""From past states to future ones, step by step."""

from __future__ import annotations

import calendar
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mosaic_core.errors import ForecastError
from mosaic_core.model.config import ModelConfig

if TYPE_CHECKING:
    from mosaic_core.model.checkpoint import LoadedModel
    from mosaic_core.model.forward import Forward


def phases(time: datetime) -> tuple[float, float]:
    """Phases of the day and of the year in cycles: seconds / 86400 and (day - 1) / length of year.

    The phase of the year has no hours in it: the trained weights saw whole days.
    """
    time = time.astimezone(UTC)
    seconds = time.hour * 3600 + time.minute * 60 + time.second
    days = 366 if calendar.isleap(time.year) else 365
    return seconds / 86400, (time.timetuple().tm_yday - 1) / days


def phase_advance(config: ModelConfig) -> tuple[float, float]:
    """Advance of both phases in a step.

    The published rollout counts 6-hour units as days in the phase of the year, so that its season
    runs four times too fast (`season: published`).
    """
    days = config.step_hours / 24
    return days, (4 * days if config.season == "published" else days) / 365.25


def rollout(
    model: LoadedModel,
    history: Tensor,
    start: datetime,
    noise: Callable[[int], Tensor],
    steps: range,
    forward: Forward | None = None,
) -> Iterator[Tensor]:
    """Yield the state after each step; only the history that the model needs is kept.

    Args:
        model: network, normalisation, configuration.
        history: (member, state, longitude, latitude, channel), physical units, oldest first,
            the last one at step `steps.start - 1`.
        start: initial time of the forecast (step 0).
        noise: raw noise of a step, (member, noise_dim); steps count from 1.
        steps: the steps to make, as in `range(1, 41)`; a later start resumes.
        forward: how the network makes a step, see `forward_of`; its modules in float32 by default.

    Yields:
        (member, longitude, latitude, channel), float32, physical units.

    Raises:
        ForecastError: a state that is not finite; step, member and channel are named.
    """
    day, year = phases(start)
    day_step, year_step = phase_advance(model.config)
    for step in steps:
        time = torch.tensor(
            [[day + (step - 1) * day_step, year + (step - 1) * year_step]], dtype=torch.float32
        ).to(history.device)
        state = _step(model, forward or model.network, history, time, noise(step))
        _require_finite(model.config, state, step)
        history = torch.cat((history[:, 1:], state[:, None]), dim=1)
        yield state


@torch.no_grad()
def _step(model: LoadedModel, forward: Forward, history: Tensor, time: Tensor, z: Tensor) -> Tensor:
    """The next physical state of (member, state, longitude, latitude, channel)."""
    normalised = normalise(model.config, history, model.mean, model.std, model.change)
    noise = z.to(history.device) if model.config.perturbed else None
    out = forward(normalised, time.expand(len(history), -1), noise)
    return next_state(
        model.config, out.float(), history[:, -1], model.mean, model.std, model.change
    )


def normalise(
    config: ModelConfig, history: Tensor, mean: Tensor, std: Tensor, change: Tensor | None
) -> Tensor:
    """What the network is shown of a history (..., state, longitude, latitude, channel).

    Models that predict changes see the states before the last one as the change since then, in
    units of a step's change: in units of the states themselves it would be a few hundredths.
    """
    if config.predicts == "state":
        return history.sub(mean).div_(std)
    assert change is not None
    last = history[..., -1:, :, :, :]
    before = (last - history[..., :-1, :, :, :]).div_(change)
    return torch.cat((before, (last - mean) / std), dim=-4)


def next_state(
    config: ModelConfig, out: Tensor, last: Tensor, mean: Tensor, std: Tensor, change: Tensor | None
) -> Tensor:
    """The physical state that the network's output stands for.

    Args:
        out, last: network output and the state before, (..., channel).
        mean, std, change: of each channel: mean, deviation, and deviation of a step's change.
    """
    if config.predicts == "state":
        return torch.addcmul(mean, out, std)
    assert change is not None
    return torch.addcmul(last, out, change)


def _require_finite(config: ModelConfig, state: Tensor, step: int) -> None:
    if torch.isfinite(state).all():
        return
    bad = ~torch.isfinite(state).all(dim=2).all(dim=1)
    member, channel = (int(i) for i in bad.nonzero()[0])
    raise ForecastError(
        f"step {step} ({step * config.step_hours} h): {config.channel_set[channel]} of the "
        f"batch's member {member + 1} is not finite ({int(bad.sum())} fields in all)",
        "finite fields",
        "look at the initial state's checks and the precision; the steps before are kept",
    )
