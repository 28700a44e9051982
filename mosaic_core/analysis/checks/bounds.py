"""Checks against what each channel looks like: mean, spread, global mean, 6-hourly tendency.

Wrong units show as a mean or a spread that no atmosphere has: gpm for m2 s-2, degC for K, percent
or g/kg for kg/kg, hPa for Pa, m/s for Pa/s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

import numpy as np
import yaml
from numpy.typing import ArrayLike

from mosaic_core import dims
from mosaic_core.analysis.checks.result import CheckResult, Stack, Subject, has_channel, judge
from mosaic_core.channels import Channel, Channels


@dataclass(frozen=True)
class Bounds:
    """Round numbers for one channel; see `data/bounds.yaml`.

    tendency_within: lowest and highest share of the usual tendency.
    """

    mean: float
    spread: float
    tendency: float
    mean_within: float
    spread_within: float = 2.0
    tendency_within: tuple[float, float] = (0.15, 2.5)


@lru_cache(maxsize=1)
def _table() -> Mapping[str, Any]:
    text = (files("mosaic_core.analysis") / "data/bounds.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)  # type: ignore[no-any-return]


def bounds_of(channel: Channel) -> Bounds:
    """Bounds of a channel; between two levels by the logarithm of pressure."""
    if channel.level is None:
        return Bounds(**_table()["surface"][channel.variable])
    row = _table()["upper_air"][channel.variable]
    at, known = np.log(channel.level), np.log(_table()["levels"])
    mean, spread, tendency = (
        float(np.interp(at, known, row[column])) for column in ("mean", "spread", "tendency")
    )
    return Bounds(mean, spread, tendency, row["mean_within"], row["spread_within"])


def global_means() -> Mapping[str, tuple[float, float]]:
    """Lowest and highest area mean of some channels."""
    return {name: (low, high) for name, (low, high) in _table()["global_means"].items()}


@dataclass(frozen=True)
class Climatology:
    """What analyses of one planet look like.

    Attributes:
        whose: in words, for messages.
        bounds: of a channel.
        global_means: lowest and highest area mean of some channels, by name.
        lead: how much better another placement must fit to be believed; see `Alignment`.
        leads: the same for single checks, by name.
    """

    whose: str
    bounds: Callable[[Channel], Bounds]
    global_means: Mapping[str, tuple[float, float]]
    lead: float = 0.003
    leads: Mapping[str, float] = field(default_factory=dict)


EARTH: Final = Climatology("the Earth's atmosphere", bounds_of, global_means())


def climatology_of(source: object, channels: Channels) -> Climatology:
    """That of the planet of `source`: the Earth, unless the source has statistics of its own.

    A simulated planet offers `usual(channels)`: mean, spread and 6-hourly tendency of each, as
    arrays. Its fields are smooth, so that a point more or less fits nearly as well (0.004 better at
    most in the simulations tried, 0.017 on the continents), and its moisture lies up to 5 degrees
    from the ascent that brought it (0.04 better there).
    """
    usual = getattr(source, "usual", None)
    if usual is None:
        return EARTH
    numbers: tuple[ArrayLike, ArrayLike, ArrayLike] = usual(channels)
    table = {
        channel: Bounds(float(mean), float(spread), float(tendency), **_allowed(channel.variable))
        for channel, mean, spread, tendency in zip(channels, *map(np.asarray, numbers), strict=True)
    }
    means = {
        name: (bounds.mean - 0.2 * bounds.spread, bounds.mean + 0.2 * bounds.spread)
        for name in EARTH.global_means
        if (bounds := table.get(Channel.parse(name))) is not None
    }
    whose = f"the atmosphere of {getattr(source, 'name', 'this source')}"
    leads = {"orientation on the continents": 0.05, "humidity and ascent": 0.1}
    return Climatology(whose, table.__getitem__, means, lead=0.02, leads=leads)


def _allowed(variable: str) -> dict[str, Any]:
    """Of a simulated planet, by `Bounds`; humidity about the tropopause comes and goes."""
    if variable == "specific_humidity":
        return {"mean_within": 2.0, "spread_within": 30.0, "tendency_within": (0.02, 10.0)}
    if variable == "vertical_velocity":
        return {"mean_within": 0.6, "spread_within": 3.0, "tendency_within": (0.15, 4.0)}
    return {"mean_within": 0.6, "spread_within": 1.75}


@dataclass(frozen=True)
class Plausible:
    """Area-weighted mean and spread of every channel at every time."""

    climatology: Climatology = EARTH
    name: str = "units and plausible values"

    def run(self, subject: Subject) -> Iterable[CheckResult]:
        failures, named = [], []
        for channel in _present(subject):
            bounds = self.climatology.bounds(channel)
            for time, plane in zip(subject.times, _stack(subject, channel), strict=True):
                mean = _mean(plane, subject.weights)
                spread = np.sqrt(_mean((plane - mean) ** 2, subject.weights))
                off = abs(mean - bounds.mean) / bounds.spread
                factor = max(spread / bounds.spread, bounds.spread / max(spread, 1e-30))
                if off <= bounds.mean_within and factor <= bounds.spread_within:
                    continue
                failures.append(
                    f"{channel} has mean {mean:.4g} and spread {spread:.4g} {channel.units} "
                    f"at {time} where about {bounds.mean:.4g} and {bounds.spread:.4g} are usual"
                )
                named.append(channel.name)
        yield judge(
            self.name,
            failures,
            f"{len(_present(subject))} channels are as usual",
            f"units of the channel, values of {self.climatology.whose}",
            channels=sorted(set(named)),
            times=subject.times,
        )


@dataclass(frozen=True)
class GlobalMeans:
    """Area means that hold through the year, within narrow bounds."""

    climatology: Climatology = EARTH
    name: str = "global means"

    def run(self, subject: Subject) -> Iterable[CheckResult]:
        failures, named, values = [], [], {}
        for text, (low, high) in self.climatology.global_means.items():
            channel = Channel.parse(text)
            if channel not in _present(subject):
                continue
            for time, plane in zip(subject.times, _stack(subject, channel), strict=True):
                mean = _mean(plane, subject.weights)
                values[f"{text} {time}"] = float(mean)
                if not low <= mean <= high:
                    failures.append(f"{channel} is {mean:.6g} at {time}, not {low:g} to {high:g}")
                    named.append(channel.name)
        if not values:
            found = "none of its channels is asked for"
            yield CheckResult(self.name, "skipped", found)
            return
        expected = f"the means of {self.climatology.whose}"
        yield judge(self.name, failures, "as usual", expected, channels=named, values=values)


@dataclass(frozen=True)
class Tendency:
    """Root mean square change between consecutive times, scaled to 6 hours.

    It grows less than linearly with time, so times further apart than a day are not compared.
    """

    climatology: Climatology = EARTH
    name: str = "tendency"

    def run(self, subject: Subject) -> Iterable[CheckResult]:
        pairs = list(self._pairs(subject))
        if not pairs:
            yield CheckResult(self.name, "skipped", "no time within a day before")
            return
        failures, named = [], []
        for channel, hours, change in pairs:
            bounds = self.climatology.bounds(channel)
            lowest, highest = bounds.tendency_within
            usual = bounds.tendency * np.sqrt(hours / 6)
            if not lowest <= change / usual <= highest:
                failures.append(
                    f"{channel} changes by {change:.4g} {channel.units} in {hours:g} h "
                    f"where {usual:.4g} is usual"
                )
                named.append(channel.name)
        yield judge(
            self.name,
            failures,
            f"{len(pairs)} changes are as usual",
            "0.15 to 2.5 times the usual change (see `Bounds`)",
            channels=sorted(set(named)),
        )

    def _pairs(self, subject: Subject) -> Iterable[tuple[Channel, float, float]]:
        times = subject.dataset[dims.VALID_TIME].values
        before = subject.previous
        if before is not None:
            times = np.concatenate([before[dims.VALID_TIME].values[-1:], times])
        hours = np.diff(times) / np.timedelta64(1, "h")
        for channel in _present(subject):
            stack = _stack(subject, channel)
            own_times = hours
            if before is not None:
                if has_channel(before, channel):
                    last = before[channel.variable]
                    if channel.level is not None:
                        last = last.sel({dims.LEVEL: channel.level})
                    plane = last.transpose(dims.VALID_TIME, dims.LATITUDE, dims.LONGITUDE)
                    stack = np.concatenate([plane.values[-1:].astype(np.float64), stack])
                else:
                    own_times = hours[1:]
            for apart, change in zip(own_times, np.diff(stack, axis=0), strict=True):
                if 0 < apart <= 24:
                    rms = float(np.sqrt(_mean(change**2, subject.weights)))
                    yield channel, float(apart), rms


def _present(subject: Subject) -> list[Channel]:
    return [c for c in subject.channels if has_channel(subject.dataset, c)]


def _stack(subject: Subject, channel: Channel) -> Stack:
    return subject.stack(channel.variable, channel.level)


def _mean(plane: Stack, weights: Stack) -> float:
    return float((plane * weights).sum() / (np.ones_like(plane) * weights).sum())
