"""Ten steps of all members with every state brought to host memory."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.measuring import Measures, Result, Scale, errors, peaked
from benchmarks.gpu.networks import Step, inputs, model
from benchmarks.gpu.sections.step import ours
from mosaic_core.ensemble.outgoing import Outgoing
from mosaic_core.model.checkpoint import LoadedModel
from mosaic_core.model.rollout import rollout

START = datetime(2020, 1, 1, tzinfo=UTC)


def run(scale: Scale) -> Measures:
    loaded = model(scale)
    steps = scale.pick(10, 2)
    for arithmetic in ("float16", "int8"):
        step = ours(scale, loaded.network, arithmetic)
        measure = partial(_to_host, scale, loaded, step, scale.pick(24, 3), steps)
        yield f"ours_{arithmetic}", measure
    exact = functools.cache(partial(_last, scale, loaded, loaded.network, steps))
    ways: dict[str, Step] = {
        "modules": _cast(scale, loaded.network),
        "ours": ours(scale, loaded.network, "float16"),
        "ours_int8": ours(scale, loaded.network, "int8"),
    }
    for name, step in ways.items():
        yield f"rounding_{name}", partial(_rounding, scale, loaded, step, steps, exact)


def _states(scale: Scale, loaded: LoadedModel, step: Step, members: int, steps: int):  # type: ignore[no-untyped-def]
    """Generator of the states of a rollout from random ones; the same at every call."""
    torch.manual_seed(3)
    history, _, _ = inputs(scale, loaded.config, members)
    noise = torch.randn(steps + 1, members, loaded.config.noise_dim)
    return rollout(loaded, history, START, noise.__getitem__, range(1, steps + 1), step)


def _to_host(scale: Scale, loaded: LoadedModel, step: Step, members: int, steps: int) -> Result:
    nlon, nlat = loaded.config.lat_lon.shape
    host = torch.empty(steps, len(loaded.config.channel_set), members, nlat, nlon)
    host.zero_()  # pages are there before the clock runs

    def whole() -> float:
        begin = time.perf_counter()
        with Outgoing(scale.device) as outgoing:
            for state, into in zip(_states(scale, loaded, step, members, steps), host, strict=True):
                outgoing.put(state, into)
            outgoing.settle()
        return time.perf_counter() - begin

    whole()  # kernels are compiled, buffers are pinned
    seconds, peak = peaked(whole, scale)
    return {
        "seconds": seconds, "members": members, "steps": steps, "ms": 1e3 * seconds / steps,
        "peak_gb": peak, "output_gb": host.numel() * 4 / 1e9,
        "finite": bool(torch.isfinite(host).all()),
    }  # fmt: skip


def _cast(scale: Scale, network: Step) -> Step:
    def step(states: Tensor, day_year: Tensor, z: Tensor | None) -> Tensor:
        with torch.autocast(scale.device.type, torch.float16):
            out: Tensor = network(states, day_year, z).float()
        return out

    return step


def _last(scale: Scale, loaded: LoadedModel, step: Step, steps: int) -> Tensor:
    """One member after the last step."""
    *_, last = _states(scale, loaded, step, 1, steps)
    return last


def _rounding(
    scale: Scale, loaded: LoadedModel, step: Step, steps: int, exact: Callable[[], Tensor]
) -> Result:
    """Against the modules in float32, from the same state with the same noise."""
    return {"steps": steps, **errors(_last(scale, loaded, step, steps), exact())}
