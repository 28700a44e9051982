"""The `simulated` source: analyses of the embedded atmosphere in the layout of any archive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal

import numpy as np
import xarray as xr

from mosaic_core import settings as reading
from mosaic_core.channels import VARIABLES, Channels
from mosaic_core.dims import COORDINATE_ATTRIBUTES, LATITUDE, LEVEL, LONGITUDE, VALID_TIME
from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.simulation import restart
from mosaic_core.simulation.diagnostics import Diagnostics
from mosaic_core.simulation.planet import find_planet
from mosaic_core.simulation.trajectory import Trajectory, cache_folder
from mosaic_core.simulation.transforms import Array
from mosaic_core.threads import one_thread

LEAST_LEVEL: Final = 20
"""hPa: the model has no layer above."""

_PATTERN_DAYS: Final = 4


@dataclass(frozen=True)
class SimulatedSettings:
    """What a profile may say of the simulated source.

    Attributes:
        planet: `terra`, `terra-seasons` or `held-suarez`.
        truncation: of the model, 31 or 42 where a restart is shipped.
        seed: of the run and of its analysis errors; 0 is the shipped weather.
        analysis_error: size of the error of an analysis, as a share of a 24 h change; 0 is none.
        grid: (longitudes, latitudes) of the grid with both poles.
        restart: another restart file than the shipped one.
        checkpoints: folder of checkpoints; the user's cache when None, none when empty.
    """

    kind: Literal["simulated"] = "simulated"
    planet: str = "terra"
    truncation: int = 42
    seed: int = 0
    analysis_error: float = 0.12
    grid: tuple[int, int] = (240, 121)
    restart: str | None = None
    checkpoints: str | None = None

    def __post_init__(self) -> None:
        find_planet(self.planet)
        if self.seed < 0:
            raise ConfigurationError(f"seed {self.seed}", "0 or more")
        if not 0 <= self.analysis_error <= 1:
            raise ConfigurationError(f"analysis_error {self.analysis_error:g}", "0..1, often 0.12")


class SimulatedSource:
    """Analyses, truth and static fields of one simulated run.

    Deterministic: the same settings and valid time give the same values, in whatever order they
    are asked for; bit for bit on one machine. Times start at the restart's (2026-01-01T00Z for
    the shipped ones), in steps of the model; the future is available like the past.

    Raises:
        ConfigurationError: unknown planet or setting.
        AnalysisMissing: no restart for this planet and truncation.
        AnalysisUnreadable: the restart is cut short, altered or of another version.
    """

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.settings = reading.build(SimulatedSettings, dict(settings), "simulated source")
        s = self.settings
        path = restart.shipped(s.planet, s.truncation) if s.restart is None else Path(s.restart)
        folder = cache_folder() if s.checkpoints is None else Path(s.checkpoints)
        self.trajectory = Trajectory(path, s.seed, None if s.checkpoints == "" else folder)
        model = self.trajectory.model
        if (model.planet.name, model.truncation) != (s.planet, s.truncation):
            raise ConfigurationError(
                f"{path} is of {model.planet.name} at T{model.truncation}",
                f"{s.planet} at T{s.truncation}",
                "set planet and truncation to what the restart holds",
            )
        self.grid = LatLonGrid.with_poles(*s.grid)
        self._diagnostics: dict[str, Diagnostics] = {}

    @property
    def name(self) -> str:
        """Names the folder of stored analyses: the run, its seed and its analysis error."""
        s = self.settings
        base = f"simulated-{s.planet}-t{self.trajectory.model.truncation}-s{s.seed}"
        return base if s.analysis_error == 0.12 else f"{base}-e{s.analysis_error:g}"

    def fetch(self, channels: Channels, valid_times: Sequence[datetime]) -> xr.Dataset:
        """Analyses: truth and a balanced error, independent from one valid time to the next.

        Returns:
            (valid_time, [level,] latitude, longitude), float32, as asked for.

        Raises:
            ConfigurationError: a time before the restart or between the model's time steps, or a
                level above the model's top.
        """
        share = np.float32(self.settings.analysis_error)
        states = [
            (time, x + share * self._error(time) if share else x)
            for time, x in self.trajectory.coefficients(valid_times)
        ]
        return self._dataset(channels, valid_times, dict(states), "analysis")

    def truth(self, channels: Channels, valid_times: Sequence[datetime]) -> xr.Dataset:
        """The same without analysis error."""
        states = dict(self.trajectory.coefficients(valid_times))
        return self._dataset(channels, valid_times, states, "truth")

    def iterate(
        self, channels: Channels, start: datetime, count: int, step_hours: int = 6
    ) -> Iterator[xr.Dataset]:
        """Truth at `count` times from `start`, one at a time and never all in memory."""
        for i in range(count):
            yield self.truth(channels, [start + timedelta(hours=step_hours * i)])

    def require(self, channels: Channels, time: datetime) -> None:
        """Refuse what `fetch` would refuse, without running the model."""
        _check(channels, [time])
        self.trajectory.step_of(time)

    def static_fields(self, grid: LatLonGrid | None = None) -> Array:
        """(longitude, latitude, 3): geopotential_at_surface, land_sea_mask, soil_type."""
        return self._on(grid or self.grid).static_fields()

    def statistics(self, channels: Channels) -> tuple[Array, Array]:
        """Climatological mean and standard deviation of each channel of this planet, (channel,).

        Those of the shipped climate at T42; levels that it does not hold are refused.

        Raises:
            ConfigurationError: a channel without statistics; it is named.
        """
        mean, std, _ = self.usual(channels)
        return mean, std

    def usual(self, channels: Channels) -> tuple[Array, Array, Array]:
        """`statistics`, and the root mean square six-hour change of each channel."""
        with (files("mosaic_core.simulation") / "normalisation.npz").open("rb") as file:
            stored = dict(np.load(file))
        names = stored["channels"].tolist()
        absent = [name for name in channels.names if name not in names]
        if absent:
            raise ConfigurationError(
                f"no statistics of the simulated {', '.join(absent)}", f"of {', '.join(names)}"
            )
        order = [names.index(name) for name in channels.names]
        change = np.hypot(stored["residual_mean"], stored["residual_std"])
        mean, std, tendency = (
            np.asarray(x[order], np.float32)
            for x in (stored["state_mean"], stored["state_std"], change)
        )
        return mean, std, tendency

    @property
    def provenance(self) -> dict[str, str]:
        """What these analyses are made of, for records."""
        s, model = self.settings, self.trajectory.model
        return {
            "source": "simulated",
            "planet": s.planet,
            "model": f"mosaic simulation v{restart.VERSION} T{model.truncation}",
            "seed": str(s.seed),
            "analysis_error": f"{s.analysis_error:g} of a 24 h change",
        }

    def _on(self, grid: LatLonGrid) -> Diagnostics:
        if grid.digest not in self._diagnostics:
            self._diagnostics[grid.digest] = Diagnostics(self.trajectory.model, grid)
        return self._diagnostics[grid.digest]

    @cached_property
    def _patterns(self) -> list[Array]:
        """Changes over each of the first days of the run: what balanced errors look like."""
        start = self.trajectory.start_time
        days = [start + timedelta(days=i) for i in range(_PATTERN_DAYS + 1)]
        states = [x for _, x in self.trajectory.coefficients(days)]
        return [after - before for before, after in pairwise(states)]

    def _error(self, time: datetime) -> Array:
        """A random sum of the patterns, each turned around the axis, with the size of one."""
        seconds = int(time.astimezone(UTC).timestamp())
        key = np.array([self.settings.seed, seconds], np.uint64)
        random = np.random.Generator(np.random.Philox(key=key))
        weights = random.standard_normal(len(self._patterns))
        weights /= np.linalg.norm(weights)
        angles = random.uniform(0, 2 * np.pi, len(weights))
        out = np.zeros_like(self._patterns[0])
        order = np.arange(out.shape[0])[:, None, None]
        for pattern, weight, angle in zip(self._patterns, weights, angles, strict=True):
            cos = (weight * np.cos(order * angle)).astype(np.float32)
            sin = (weight * np.sin(order * angle)).astype(np.float32)
            out[:, 0] += cos * pattern[:, 0] - sin * pattern[:, 1]
            out[:, 1] += sin * pattern[:, 0] + cos * pattern[:, 1]
        return out

    def _dataset(
        self,
        channels: Channels,
        times: Sequence[datetime],
        states: Mapping[datetime, Array],
        content: str,
    ) -> xr.Dataset:
        _check(channels, times)
        diagnose = self._on(self.grid)
        levels = sorted({c.level for c in channels if c.level is not None})
        with one_thread():
            fields = [diagnose(states[time], channels) for time in times]
        variables = {}
        for name, own in channels.variables.items():
            values = np.stack([field[name] for field in fields])
            variable = VARIABLES[name]
            attributes = {"units": variable.units, "standard_name": variable.standard_name}
            dims: tuple[str, ...] = (VALID_TIME, LEVEL, LATITUDE, LONGITUDE)
            if own:
                values = _by_level(values, own, levels)
            else:
                dims = (VALID_TIME, LATITUDE, LONGITUDE)
            variables[name] = xr.Variable(dims, values, attributes)
        stamps = [np.datetime64(t.astimezone(UTC).replace(tzinfo=None), "ns") for t in times]
        coordinates: dict[str, object] = {
            VALID_TIME: np.array(stamps),
            LATITUDE: np.asarray(self.grid.latitudes),
            LONGITUDE: np.asarray(self.grid.longitudes),
        }
        if levels:
            coordinates[LEVEL] = np.array(levels, np.int32)
        dataset = xr.Dataset(variables, coordinates)
        for name in coordinates:
            dataset[name].attrs.update(COORDINATE_ATTRIBUTES[name])
        dataset.attrs = {"Conventions": "CF-1.11", "content": content, **self.provenance}
        return dataset


def _check(channels: Channels, times: Sequence[datetime]) -> None:
    if not times:
        raise ConfigurationError("no valid times", "at least one")
    high = [c.name for c in channels if c.level is not None and c.level < LEAST_LEVEL]
    if high:
        raise ConfigurationError(
            f"the simulation has no {', '.join(high)}", f"levels from {LEAST_LEVEL} hPa down"
        )
    levels = {own for own in map(frozenset, channels.variables.values()) if own}
    if len(levels) > 1:
        raise ConfigurationError(
            "variables on different levels", "the same levels for every variable on levels"
        )


def _by_level(values: Array, own: tuple[int, ...], levels: list[int]) -> Array:
    """Rows of axis 1 from a channel's order of levels to the dataset's."""
    return np.ascontiguousarray(values[:, [own.index(level) for level in levels]])
