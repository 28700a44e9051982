"""How fast two runs of the simulated atmosphere part, from a small difference.

OMP_NUM_THREADS=1 python -m benchmarks.error_growth --truncation 42

A disturbance is barotropic wind of random phase at l = 3 to N/2. Rates are those of the mean
logarithm over all starts.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import record
from mosaic_core.simulation import restart
from mosaic_core.simulation.model import Model, State, perturb
from mosaic_core.simulation.planet import find_planet
from mosaic_core.simulation.transforms import Array
from mosaic_core.simulation.vertical import LAYERS
from mosaic_core.threads import one_thread

LAYER = 5
"""Near 250 hPa."""

SIZES = (0.06, 0.5)
"""Of the disturbances, m/s."""

RANGES = ((0.1, 0.5), (0.5, 1.0), (1.0, 4.0))
STARTS = 4
DAYS_APART = 5
DAYS = 13


def difference(model: Model, a: Array, b: Array) -> float:
    """Root mean square 250 hPa wind difference of two states, m/s."""
    t = model.transforms
    change = a - b
    layer = [change[:, :, k : k + 1] for k in (LAYER, LAYERS + LAYER)]
    wind = t.synthesis(np.concatenate(t.winds(*layer), axis=2)) / np.cos(t.latitude)[:, None]
    return float(np.sqrt(t.mean((wind**2).sum(0))))


def disturbed(model: Model, state: State, seed: int, size: float) -> State:
    """The state with the same wind added at both time levels, so that leapfrog takes it as one."""

    def moved(x: Array) -> Array:
        out = x.copy()
        perturb(model, out, seed, size, model.truncation // 2)
        return out

    previous = None if state.previous is None else moved(state.previous)
    return State(state.step, moved(state.current), previous, state.forcing)


@dataclass
class Twin:
    """A disturbed run beside the control, and how far it has gone from it."""

    size: float
    state: State
    differences: list[float]


def growth(truncation: int) -> dict[float, NDArray[np.float64]]:
    """By size of the disturbance: differences (start, day), m/s, day 0 first."""
    model = Model(find_planet("terra"), truncation)
    control = restart.read(restart.shipped("terra", truncation)).state
    twins: list[Twin] = []
    last = DAYS_APART * (STARTS - 1) + DAYS
    for day in range(last + 1):
        start, rest = divmod(day, DAYS_APART)
        if rest == 0 and start < STARTS:
            twins += [Twin(n, disturbed(model, control, 100 + start, n), []) for n in SIZES]
        active = [twin for twin in twins if len(twin.differences) <= DAYS]
        for twin in active:
            twin.differences.append(difference(model, twin.state.current, control.current))
        for _ in range(86400 // model.time_step):
            control = model.step(control)
            for twin in active:
                twin.state = model.step(twin.state)
    return {n: np.array([t.differences for t in twins if t.size == n]) for n in SIZES}


def doubling(curves: NDArray[np.float64], first: float, last: float) -> float | None:
    """Days to double between two sizes, from the mean logarithm; None where it spans neither.

    The decay of what is no growing disturbance, in the first days, does not count: the curve is
    followed from its last crossing of `first`.
    """
    mean = np.log(curves).mean(axis=0)
    times = []
    for size in (first, last):
        below = np.flatnonzero(mean < np.log(size))
        if not below.size or below[-1] + 1 == mean.size:
            return None
        day = below[-1]
        times.append(day + (np.log(size) - mean[day]) / (mean[day + 1] - mean[day]))
    return float((times[1] - times[0]) * np.log(2) / np.log(last / first))


def summary(curves: dict[float, NDArray[np.float64]]) -> dict[str, Any]:
    return {
        f"from {size} m/s": {
            "geometric_mean": [round(float(x), 4) for x in np.exp(np.log(c).mean(0))],
            "days_to_double": {
                f"{first:g} to {last:g} m/s": None if days is None else round(days, 2)
                for first, last in RANGES
                for days in [doubling(c, first, last)]
            },
        }
        for size, c in curves.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--truncation", type=int, default=42)
    truncation = parser.parse_args().truncation
    with one_thread():
        result = summary(growth(truncation))
    record(
        f"error_growth_T{truncation}",
        f"OMP_NUM_THREADS=1 python -m benchmarks.error_growth --truncation {truncation}",
        {"what": f"rms 250 hPa wind difference after each day, m/s; {STARTS} starts", **result},
        ("numpy",),
    )


if __name__ == "__main__":
    main()
