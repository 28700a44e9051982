"""Channels: one field each, in the order of the model's tensors."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from mosaic_core.errors import ConfigurationError

LEVELS: Final = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)


@dataclass(frozen=True)
class Variable:
    """A quantity: WeatherBench name, units (UDUNITS), CF standard name, GRIB short name."""

    name: str
    units: str
    standard_name: str
    short_name: str
    on_levels: bool


VARIABLES: Final[dict[str, Variable]] = {
    variable.name: variable
    for variable in (
        Variable("2m_temperature", "K", "air_temperature", "2t", False),
        Variable("10m_u_component_of_wind", "m s-1", "eastward_wind", "10u", False),
        Variable("10m_v_component_of_wind", "m s-1", "northward_wind", "10v", False),
        Variable("mean_sea_level_pressure", "Pa", "air_pressure_at_mean_sea_level", "msl", False),
        Variable("geopotential", "m2 s-2", "geopotential", "z", True),
        Variable("specific_humidity", "kg kg-1", "specific_humidity", "q", True),
        Variable("temperature", "K", "air_temperature", "t", True),
        Variable("u_component_of_wind", "m s-1", "eastward_wind", "u", True),
        Variable("v_component_of_wind", "m s-1", "northward_wind", "v", True),
        Variable("vertical_velocity", "Pa s-1", "lagrangian_tendency_of_air_pressure", "w", True),
    )
}


@dataclass(frozen=True)
class Channel:
    """One variable at one pressure level (hPa), or at the surface (`level` is None)."""

    variable: str
    level: int | None = None

    def __post_init__(self) -> None:
        known = VARIABLES.get(self.variable)
        if known is None:
            near = difflib.get_close_matches(self.variable, VARIABLES, n=1)
            raise ConfigurationError(
                f"unknown variable {self.variable!r}",
                f"one of {', '.join(VARIABLES)}",
                f"did you mean {near[0]!r}?" if near else "",
            )
        if known.on_levels != (self.level is not None):
            raise ConfigurationError(
                f"channel {self.variable!r} at level {self.level}",
                "a pressure level in hPa" if known.on_levels else "no level",
            )

    @classmethod
    def parse(cls, name: str) -> Channel:
        """Read `geopotential_500` or `2m_temperature`."""
        stem, _, tail = name.rpartition("_")
        if stem in VARIABLES and tail.isdigit():
            return cls(stem, int(tail))
        return cls(name)

    @property
    def name(self) -> str:
        return self.variable if self.level is None else f"{self.variable}_{self.level}"

    @property
    def units(self) -> str:
        return VARIABLES[self.variable].units

    @property
    def standard_name(self) -> str:
        return VARIABLES[self.variable].standard_name

    def __str__(self) -> str:
        if self.level is None:
            return self.variable
        return f"{self.variable} at {self.level} hPa"


@dataclass(frozen=True)
class Channels:
    """An ordered set of channels; the order is that of the last axis of a state tensor."""

    items: tuple[Channel, ...]

    def __post_init__(self) -> None:
        twice = sorted({c.name for c in self.items if self.items.count(c) > 1})
        if twice:
            raise ConfigurationError(f"channels named twice: {', '.join(twice)}", "each once")
        if not self.items:
            raise ConfigurationError("no channels", "at least one")

    @classmethod
    def parse(cls, names: Iterable[str]) -> Channels:
        return cls(tuple(Channel.parse(name) for name in names))

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Channel]:
        return iter(self.items)

    def __getitem__(self, index: int) -> Channel:
        return self.items[index]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(channel.name for channel in self.items)

    @cached_property
    def variables(self) -> dict[str, tuple[int, ...]]:
        """Levels (hPa) of each variable, in order; an empty tuple for a surface variable."""
        levels: dict[str, tuple[int, ...]] = {}
        for channel in self.items:
            level = () if channel.level is None else (channel.level,)
            levels[channel.variable] = levels.get(channel.variable, ()) + level
        return levels

    def index(self, name: str) -> int:
        """Position of the channel `name`.

        Raises:
            ConfigurationError: no such channel; the nearest name is given.
        """
        try:
            return self.names.index(name)
        except ValueError:
            near = difflib.get_close_matches(name, self.names, n=1)
            raise ConfigurationError(
                f"no channel {name!r}",
                f"one of the {len(self)} channels of this model",
                f"did you mean {near[0]!r}?" if near else "",
            ) from None


ERA5_82: Final = Channels(
    tuple(
        [Channel(name) for name, variable in VARIABLES.items() if not variable.on_levels]
        + [
            Channel(name, level)
            for name, variable in VARIABLES.items()
            if variable.on_levels
            for level in LEVELS
        ]
    )
)
"""The 82 channels of the published models, in their order."""
