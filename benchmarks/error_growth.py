"""How fast two runs of the simulated atmosphere part, from a small difference.

OMP_NUM_THREADS=1 python -m benchmarks.error_growth [--truncations 31 42] [--days 24]

A disturbance is barotropic wind of random phase at l = 3 to N/2. Rates are those of the mean
logarithm over all starts.
"""

from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.record import record
from mosaic_core.simulation import restart
from mosaic_core.simulation.model import Model, State, perturb
from mosaic_core.simulation.threads import one_thread
from mosaic_core.simulation.trajectory import Trajectory
from mosaic_core.simulation.transforms import Array
from mosaic_core.simulation.vertical import LAYERS

LAYER = 5
"""Near 250 hPa."""

SIZES = (0.02, 0.5)
"""Of the disturbances, m/s."""

RANGES = ((0.06, 0.5), (0.5, 1.0), (1.0, 4.0), (4.0, 8.0))
STARTS = 4
DAYS_APART = 12


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


def growth(truncation: int, days: int) -> dict[float, NDArray[np.float64]]:
    """By size of the disturbance: differences (start, day), m/s, day 0 first."""
    run = Trajectory(restart.shipped("terra", truncation))
    model, curves = run.model, {size: np.zeros((STARTS, days + 1)) for size in SIZES}
    for start in range(STARTS):
        step = run.step_of(run.start_time + timedelta(days=DAYS_APART * start))
        states = [run.state(step)]
        for size in SIZES:
            states.append(disturbed(model, states[0], 100 + start, size))
        for day in range(days + 1):
            for state, size in zip(states[1:], SIZES, strict=True):
                curves[size][start, day] = difference(model, state.current, states[0].current)
            if day < days:
                for _ in range(86400 // model.time_step):
                    states = [model.step(state) for state in states]
    return curves


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
    parser.add_argument("--truncations", type=int, nargs="+", default=[31, 42])
    parser.add_argument("--days", type=int, default=24)
    options = parser.parse_args()
    numbers = " ".join(map(str, options.truncations))
    with one_thread():
        result = {f"T{n}": summary(growth(n, options.days)) for n in options.truncations}
    record(
        "error_growth",
        f"OMP_NUM_THREADS=1 python -m benchmarks.error_growth --truncations {numbers} "
        f"--days {options.days}",
        {"what": f"rms 250 hPa wind difference after each day, m/s; {STARTS} starts", **result},
        ("numpy",),
    )


if __name__ == "__main__":
    main()
