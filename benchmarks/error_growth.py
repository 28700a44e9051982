"""How fast two runs of the simulated atmosphere part, from a small difference.

OMP_NUM_THREADS=1 python -m benchmarks.error_growth [--days 18]
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.record import record
from mosaic_core.simulation import restart
from mosaic_core.simulation.model import State, perturb
from mosaic_core.simulation.threads import one_thread
from mosaic_core.simulation.trajectory import Trajectory

LAYER = 5
"""Near 250 hPa."""


def growth(truncation: int, days: int) -> list[float]:
    """Root mean square wind difference (m/s) in one layer after each day."""
    run = Trajectory(restart.shipped("terra", truncation), 0, None)
    model, first = run.model, run._start
    disturbed = first.current.copy()
    perturb(model, disturbed, 7, 0.5, truncation // 2)
    second = State(0, disturbed)
    transforms = model.transforms
    cosine = np.cos(transforms.latitude)[:, None]
    differences = []
    for _ in range(days):
        for _ in range(86400 // model.time_step):
            first, second = model.step(first), model.step(second)
        change = first.current - second.current
        vorticity, divergence = (
            change[:, :, LAYER : LAYER + 1],
            change[:, :, 12 + LAYER : 13 + LAYER],
        )
        u, v = transforms.winds(vorticity, divergence)
        wind = transforms.synthesis(np.concatenate([u, v], 2)) / cosine
        differences.append(float(np.sqrt(transforms.mean((wind**2).sum(0)))))
    return differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=18)
    days = parser.parse_args().days
    with one_thread():
        result = {f"T{n}": [round(x, 4) for x in growth(n, days)] for n in (31, 42)}
    record(
        "error_growth",
        f"OMP_NUM_THREADS=1 python -m benchmarks.error_growth --days {days}",
        {"what": "rms 250 hPa wind difference after each day, m/s", **result},
        ("numpy",),
    )


if __name__ == "__main__":
    main()
