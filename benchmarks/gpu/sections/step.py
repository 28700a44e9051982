"""One step of the whole network, all members: time, rate, memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.measuring import Measures, Result, Scale, nothing_left, peaked, rated, timed
from benchmarks.gpu.networks import Step, inputs, model
from benchmarks.gpu.operations import member_step
from benchmarks.gpu.straightforward import straightforward
from mosaic_core.kernels.dispatch import forced_backend
from mosaic_core.model.fused import FusedNetwork

BASELINE = "straightforward"


def run(scale: Scale) -> Measures:
    """Eager baseline first: compiling the other may take all the time that is left.

    The baselines take 8 members at a time, so that no gathered tensor of attention has 2^31
    numbers; times are compared a member.
    """
    loaded = model(scale)
    members, few = scale.pick((24, 8), (3, 2))
    measure = partial(_measured, scale, loaded.config)
    yield (
        "straightforward_eager",
        lambda: measure(few, straightforward(loaded.network, lambda function: function)),
    )
    yield "ours", lambda: measure(members, ours(scale, loaded.network, "float16"))
    yield "ours_int8", lambda: measure(members, ours(scale, loaded.network, "int8"))
    yield "ours_one_member", lambda: measure(1, ours(scale, loaded.network, "float16"))
    if scale.device.type == "cuda":
        yield "ours_one_member_graph", lambda: measure(1, _recorded(scale, loaded.network))
    yield BASELINE, lambda: _counted(measure, few, straightforward(loaded.network, scale.compiled))
    yield "ours_again", lambda: measure(members, ours(scale, loaded.network, "float16"))
    yield "ours_int8_again", lambda: measure(members, ours(scale, loaded.network, "int8"))


def ours(scale: Scale, network: torch.nn.Module, arithmetic: str) -> Step:
    fused = FusedNetwork(network, arithmetic)  # type: ignore[arg-type]

    def step(states: Tensor, day_year: Tensor, z: Tensor | None) -> Tensor:
        with forced_backend(scale.backend):
            return fused(states, day_year, z)

    return step


def _recorded(scale: Scale, network: torch.nn.Module) -> Callable[..., Tensor]:
    from mosaic_core.model.fused.graph import RecordedNetwork

    return RecordedNetwork(FusedNetwork(network, "float16"))  # type: ignore[arg-type]


def _counted(measure: Callable[[int, Step], Result], members: int, step: Step) -> Result:
    """With what torch compiled it to: graphs, and breaks between them."""
    counters = torch._dynamo.utils.counters
    counters.clear()
    result = measure(members, step)
    graphs, breaks = counters["stats"]["unique_graphs"], counters["graph_break"]
    return {**result, "graphs": graphs, "graph_breaks": sum(breaks.values())}


def _measured(scale: Scale, config: object, members: int, step: Step) -> Result:
    """With fewer members at a time where all of them do not fit."""
    while True:
        given = inputs(scale, config, members)  # type: ignore[arg-type]
        try:
            _, peak = peaked(lambda: step(*given), scale)  # noqa: B023
            break
        except torch.OutOfMemoryError:
            if members == 1:
                raise
        members //= 2
        nothing_left(scale)
    timing = timed(lambda: step(*given), scale, seconds=0.0)
    operations = members * sum(member_step(config).values())  # type: ignore[arg-type]
    return {
        **rated(timing, operations, members, effective=True), "peak_gb": peak, "baseline": BASELINE,
        "forecast_seconds": {
            "era5, 24 members, 10 steps": 240 * timing["ms"] / members / 1e3,
            "hres, 24 members, 40 steps": 960 * timing["ms"] / members / 1e3,
        },
    }  # fmt: skip
