"""One run of the model from its restart, at any time from then on, always the same."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from mosaic_core.errors import AnalysisUnreadable, ConfigurationError
from mosaic_core.simulation import restart
from mosaic_core.simulation.model import Model, State, perturb
from mosaic_core.simulation.planet import find_planet
from mosaic_core.simulation.transforms import Array
from mosaic_core.threads import one_thread

CHECKPOINT_DAYS: Final = 10
_RECENT: Final = 12
_SPACED: Final = 80

_log = logging.getLogger(__name__)


class Trajectory:
    """States of a run by valid time; the restart is its step 0.

    Integrated from the newest state that is known at or before the time asked for: in memory, or
    a checkpoint in `folder` (every ten days, whole or absent, exact). So what is computed does not
    depend on what was asked before. A folder may serve several runs and machines: checkpoints are
    kept apart by restart, seed and the bits of the first steps, because chaos makes different
    arithmetic a different trajectory.

    Args:
        seed: 0 is the run from the restart itself; every other one starts from it with winds of
            0.5 m/s added, and is a weather of its own after some 25 days.
        folder: of checkpoints; None keeps them in memory only.

    Raises:
        AnalysisMissing, AnalysisUnreadable, ConfigurationError: as `restart.read`.
    """

    def __init__(self, path: Path, seed: int = 0, folder: Path | None = None) -> None:
        start = restart.read(path)
        self.start_time = start.valid_time
        self.model = Model(find_planet(start.planet), start.truncation)
        self._recent: OrderedDict[int, State] = OrderedDict()
        self._spaced: OrderedDict[int, State] = OrderedDict()
        state = start.state
        if seed:
            current = state.current.copy()
            perturb(self.model, current, seed, amplitude=0.5, largest=start.truncation // 2)
            state = State(0, current)
        self._start = state
        self._folder = None if folder is None else folder / self._identity(start.sha256, seed)

    def _identity(self, sha256: str, seed: int) -> str:
        state = self._start
        with one_thread():
            for _ in range(3):
                state = self.model.step(state)
        bits = hashlib.sha256(f"{sha256} {seed}".encode() + state.current.tobytes()).hexdigest()
        model = self.model
        return f"v{restart.VERSION}-{model.planet.name}-T{model.truncation}-{bits[:16]}"

    def step_of(self, time: datetime) -> int:
        """Step at `time`.

        Raises:
            ConfigurationError: before the restart, between time steps, or without a time zone.
        """
        if time.tzinfo is None:
            raise ConfigurationError(f"{time.isoformat()} has no time zone", "a time in UTC")
        steps, rest = divmod(time - self.start_time, timedelta(seconds=self.model.time_step))
        if steps < 0:
            raise ConfigurationError(
                f"no simulated analysis at {time.astimezone(UTC):%Y-%m-%dT%H:%MZ}",
                f"a time from {self.start_time:%Y-%m-%dT%HZ}, where the simulation of "
                f"{self.model.planet.name} begins; there is no end",
                "choose a later cycle",
            )
        if rest:
            raise ConfigurationError(
                f"{time.isoformat()} lies between time steps of {self.model.time_step} s",
                "a whole number of six hours",
            )
        return steps

    def coefficients(self, times: Sequence[datetime]) -> Iterator[tuple[datetime, Array]]:
        """(time, spectral state) for each time, in ascending order."""
        for time in sorted(set(times)):
            yield time, self.state(self.step_of(time)).current

    def state(self, step: int) -> State:
        """The state at `step` (0 is the restart)."""
        state = self._newest_before(step)
        spacing = CHECKPOINT_DAYS * 86400 // self.model.time_step
        six_hours = 6 * 3600 // self.model.time_step
        with one_thread():
            while state.step < step:
                state = self.model.step(state)
                if state.step % spacing == 0:
                    self._checkpoint(state)
                if state.step % six_hours == 0 and step - state.step < _RECENT * six_hours:
                    self._recent[state.step] = state
        while len(self._recent) > _RECENT:
            self._recent.popitem(last=False)
        return state

    def _newest_before(self, step: int) -> State:
        known = {0: self._start, **self._spaced, **self._recent}
        best = known[max(s for s in known if s <= step)]
        spacing = CHECKPOINT_DAYS * 86400 // self.model.time_step
        for candidate in range(step // spacing * spacing, best.step, -spacing):
            stored = self._stored(candidate)
            if stored is not None:
                return stored
        return best

    def _path(self, step: int) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / f"{self._time(step):%Y%m%dT%HZ}.npz"

    def _time(self, step: int) -> datetime:
        return self.start_time + timedelta(seconds=step * self.model.time_step)

    def _stored(self, step: int) -> State | None:
        path = self._path(step)
        if path is None or not path.exists():
            return None
        try:
            found = restart.read(path).state
        except AnalysisUnreadable as error:
            _log.warning("checkpoint is integrated anew: %s", error)
            return None
        if found.step != step or found.previous is None or found.forcing is None:
            _log.warning("checkpoint is integrated anew: %s is of step %d", path, found.step)
            return None
        return found

    def _checkpoint(self, state: State) -> None:
        _log.info("simulated to %s", f"{self._time(state.step):%Y-%m-%d}")
        self._spaced[state.step] = state
        while len(self._spaced) > _SPACED:
            self._spaced.popitem(last=False)
        path = self._path(state.step)
        if path is None or path.exists():
            return
        model = self.model
        try:
            restart.write(
                path,
                restart.Restart(model.planet.name, model.truncation, self.start_time, state, ""),
            )
        except OSError as error:
            _log.warning("no checkpoint of the simulation in %s: %s", path.parent, error)


def cache_folder() -> Path:
    """Where checkpoints go by default: `mosaic/simulation` in the user's cache directory."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mosaic" / "simulation"
