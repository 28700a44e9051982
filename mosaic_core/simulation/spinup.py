"""Make a restart file: `python -m mosaic_core.simulation.spinup --planet terra --truncation 31`.

The model starts from rest, is run until its climate no longer depends on that, and its last state
is written as the state of 2026-01-01T00Z.
"""

from __future__ import annotations

import argparse
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mosaic_core.simulation import restart
from mosaic_core.simulation.model import Model, State, cold_start
from mosaic_core.simulation.planet import find_planet
from mosaic_core.threads import one_thread

VALID_TIME: Final = datetime(2026, 1, 1, tzinfo=UTC)

_log = logging.getLogger(__name__)


def spin_up(planet: str, truncation: int, days: int, seed: int) -> restart.Restart:
    """The state after `days` from rest, as step 0 of a run from `VALID_TIME`."""
    model = Model(find_planet(planet), truncation)
    state = cold_start(model, seed)
    steps = 86400 // model.time_step
    with one_thread():
        for day in range(1, days + 1):
            for _ in range(steps):
                state = model.step(state)
            if day % 20 == 0:
                _log.info("%s T%d: day %d of %d", planet, truncation, day, days)
    return restart.Restart(planet, truncation, VALID_TIME, State(0, state.current), "")


def main() -> None:
    parser = argparse.ArgumentParser(description="Spin up a simulated planet; write its restart.")
    parser.add_argument("--planet", default="terra")
    parser.add_argument("--truncation", type=int, default=31)
    parser.add_argument("--days", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=restart.FOLDER)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    made = spin_up(options.planet, options.truncation, options.days, options.seed)
    path = options.folder / f"{made.planet}-T{made.truncation}.npz"
    restart.write(path, made)
    _log.info("%s: %d kB", path, path.stat().st_size // 1000)


if __name__ == "__main__":
    main()
