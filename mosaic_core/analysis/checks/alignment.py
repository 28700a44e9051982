"""Checks that fields lie where they should: on the continents, and on one another.

Each check has two patterns that go together in nature whatever the season, and looks for the turn
about the poles, the row offset and the reflection at the equator that bring them together best. On
a sound analysis that is none at all. The correlation is that of departures from the zonal mean, so
that the contrast of pole and equator, which any rotation keeps, does not count.

On the continents: near the ground the wind is slower over land than over sea, and where the ground
is above the pressure level the extrapolated wind hardly changes with height. Both hold in the
analyses of ERA-Interim, the IFS and GFS at every season tried (see the tests).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from mosaic_core.analysis.checks.bounds import EARTH, Climatology
from mosaic_core.analysis.checks.placement import Pair, best_fit
from mosaic_core.analysis.checks.result import CheckResult, Stack, Subject, judge
from mosaic_core.analysis.derive import saturation_vapour_pressure

OMEGA: Final = 7.2921e-5
EARTH_RADIUS: Final = 6.371e6
R_DRY: Final = 287.06

Evidence = Callable[[Subject], Sequence[Pair]]


@dataclass(frozen=True)
class Alignment:
    """One kind of evidence, at every valid time.

    Attributes:
        evidence: makes the pairs of a subject of one valid time; none where it does not apply.
        correlation: the least that sound analyses have, with room.
        tolerance: degrees of longitude that count as in place.
        lead: how much better another placement must fit to be believed. One column of 1.5 degrees
            made 0.007 to 0.024 on the analyses tried.
        middle: only latitudes of 20 to 75 degrees, where winds are in geostrophic balance.
        variables: named when the check fails.
    """

    name: str
    evidence: Evidence
    correlation: float
    what: str
    variables: tuple[str, ...]
    tolerance: float = 1.0
    middle: bool = False
    lead: float = 0.003

    def run(self, subject: Subject) -> Iterable[CheckResult]:
        failures, values = [], {}
        weights = self._weights(subject)
        for i, time in enumerate(subject.times):
            pairs = self.evidence(_one_time(subject, i))
            if not pairs:
                found = f"the channels lack what {self.what} needs"
                yield CheckResult(self.name, "skipped", found)
                return
            fit = best_fit(pairs, weights)
            values[time] = fit.as_given
            elsewhere = abs(fit.degrees_east) > self.tolerance or fit.rows_north or fit.reflected
            moved = elsewhere and fit.correlation - fit.as_given > self.lead
            if moved and fit.correlation >= self.correlation:
                failures.append(
                    f"{fit} at {time} (correlation {fit.correlation:.2f} there, "
                    f"{fit.as_given:.2f} as given)"
                )
            elif fit.as_given < self.correlation:
                failures.append(f"{self.what}: correlation only {fit.as_given:.2f} at {time}")
        lowest = min(values.values())
        yield judge(
            self.name,
            failures,
            f"in place, correlation {lowest:.2f} or more",
            f"{self.what}, correlation at least {self.correlation:g} with no rotation, "
            "reflection or shift",
            channels=self._channels(subject),
            times=subject.times,
            values=values,
        )

    def _weights(self, subject: Subject) -> Stack:
        if not self.middle:
            return subject.weights
        latitude = np.abs(np.asarray(subject.grid.latitudes))[:, None]
        return np.asarray(subject.weights * ((latitude > 20) & (latitude < 75)))

    def _channels(self, subject: Subject) -> tuple[str, ...]:
        return tuple(c.name for c in subject.channels if c.variable in self.variables)


def _one_time(subject: Subject, index: int) -> Subject:
    return Subject(
        subject.dataset.isel(valid_time=[index]),
        subject.channels,
        subject.valid_times,
        subject.grid,
        subject.static,
    )


def continents(subject: Subject) -> Sequence[Pair]:
    """Wind near the ground against land and high ground."""
    if subject.static is None:
        return []
    land = subject.static.land_sea_mask.astype(np.float64)
    high = np.clip(subject.static.geopotential_at_surface / 9.80665, 0, 1500).astype(np.float64)
    pairs: list[Pair] = []
    if subject.has("10m_u_component_of_wind") and subject.has("10m_v_component_of_wind"):
        u, v = (subject.stack(f"10m_{c}_component_of_wind")[0] for c in "uv")
        pairs.append((-np.hypot(u, v), land))
    levels = [lv for lv in subject.levels("u_component_of_wind", "v_component_of_wind") if lv > 800]
    winds = [
        [subject.stack(f"{c}_component_of_wind", level)[0] for c in "uv"] for level in levels[:2]
    ]
    if winds and levels[0] >= 975:
        pairs.append((-np.hypot(*winds[0]), land))
    if len(winds) == 2 and levels[0] >= 900:
        shear = np.hypot(winds[0][0] - winds[1][0], winds[0][1] - winds[1][1])
        pairs.append((-np.log(shear + 0.05), high))
    return pairs


def thermal_wind(subject: Subject) -> Sequence[Pair]:
    """f dv/d(ln p) = -R dT/dx between levels of the free troposphere."""
    levels = [lv for lv in subject.levels("v_component_of_wind", "temperature") if 200 <= lv <= 850]
    pairs = []
    for below, above in itertools.pairwise(levels):
        if np.log(below / above) < 0.15:
            continue
        v, t = ([subject.stack(n, lv)[0] for lv in (below, above)] for n in _V_AND_T)
        gradient = _eastward((t[0] + t[1]) / 2, subject)
        pairs.append((gradient, _coriolis(subject) * (v[1] - v[0])))
    return pairs


def zonal_thermal_wind(subject: Subject) -> Sequence[Pair]:
    """f du/d(ln p) = R dT/dy between levels of the free troposphere."""
    names = ("u_component_of_wind", "temperature")
    levels = [lv for lv in subject.levels(*names) if 200 <= lv <= 850]
    pairs = []
    for below, above in itertools.pairwise(levels):
        if np.log(below / above) < 0.15:
            continue
        u, t = ([subject.stack(n, lv)[0] for lv in (below, above)] for n in names)
        gradient = _northward((t[0] + t[1]) / 2, subject)
        pairs.append((-gradient, _coriolis(subject) * (u[1] - u[0])))
    return pairs


def geostrophic_wind(subject: Subject) -> Sequence[Pair]:
    """f v = dz/dx in the free troposphere."""
    levels = [
        lv for lv in subject.levels("v_component_of_wind", "geopotential") if 200 <= lv <= 850
    ]
    return [
        (
            _eastward(subject.stack("geopotential", lv)[0], subject),
            _coriolis(subject) * subject.stack("v_component_of_wind", lv)[0],
        )
        for lv in levels
    ]


def zonal_geostrophic_wind(subject: Subject) -> Sequence[Pair]:
    """f u = -dz/dy in the free troposphere."""
    levels = [
        lv for lv in subject.levels("u_component_of_wind", "geopotential") if 200 <= lv <= 850
    ]
    return [
        (
            -_northward(subject.stack("geopotential", lv)[0], subject),
            _coriolis(subject) * subject.stack("u_component_of_wind", lv)[0],
        )
        for lv in levels
    ]


def thickness(subject: Subject) -> Sequence[Pair]:
    """Thick layers are warm layers, above the mountains' reach."""
    levels = [lv for lv in subject.levels("geopotential", "temperature") if 200 <= lv <= 700]
    pairs = []
    for below, above in itertools.pairwise(levels):
        z, t = (
            [subject.stack(n, lv)[0] for lv in (below, above)]
            for n in ("geopotential", "temperature")
        )
        pairs.append((t[0] + t[1], z[1] - z[0]))
    return pairs


def surface_pressure(subject: Subject) -> Sequence[Pair]:
    """High pressure at sea level lifts the 1000 hPa surface."""
    if not (subject.has("mean_sea_level_pressure") and subject.has("geopotential", 1000)):
        return []
    return [(subject.stack("mean_sea_level_pressure")[0], subject.stack("geopotential", 1000)[0])]


def surface_temperature(subject: Subject) -> Sequence[Pair]:
    """2 m temperature goes with that of 1000 hPa."""
    if not (subject.has("2m_temperature") and subject.has("temperature", 1000)):
        return []
    return [(subject.stack("2m_temperature")[0], subject.stack("temperature", 1000)[0])]


def surface_wind(component: str) -> Evidence:
    """10 m wind goes with that of 1000 hPa, component by component."""
    variable = f"{component}_component_of_wind"

    def evidence(subject: Subject) -> Sequence[Pair]:
        if not (subject.has(f"10m_{variable}") and subject.has(variable, 1000)):
            return []
        return [(subject.stack(f"10m_{variable}")[0], subject.stack(variable, 1000)[0])]

    return evidence


def continuity(subject: Subject) -> Sequence[Pair]:
    """d(omega)/dp = -divergence; omega in m/s would have the other sign."""
    levels = [lv for lv in subject.levels("vertical_velocity", *_WINDS) if 100 <= lv <= 925]
    pairs = []
    for below, above in itertools.pairwise(levels):
        omega = [subject.stack("vertical_velocity", lv)[0] for lv in (below, above)]
        spread = sum(_divergence(subject, lv) for lv in (below, above))
        pairs.append((omega[0] - omega[1], -np.asarray(spread)))
    return pairs


def moist_ascent(subject: Subject) -> Sequence[Pair]:
    """Rising air is moist: relative humidity goes with ascent in the middle troposphere."""
    needs = ("specific_humidity", "temperature", "vertical_velocity")
    pairs = []
    for level in (lv for lv in subject.levels(*needs) if 300 <= lv <= 700):
        q, t, omega = (subject.stack(name, level)[0] for name in needs)
        saturation = saturation_vapour_pressure(t.astype(np.float32), "mixed")
        pairs.append((np.log(np.maximum(q, 1e-7)) - np.log(saturation), -omega))
    return pairs


_V_AND_T: Final = ("v_component_of_wind", "temperature")
_WINDS: Final = ("u_component_of_wind", "v_component_of_wind")


def _divergence(subject: Subject, level: int) -> Stack:
    u, v = (subject.stack(n, level)[0] for n in _WINDS)
    cosine = _cosine(subject)
    return _eastward(u, subject) + _northward(v * cosine, subject) / cosine


def _eastward(plane: Stack, subject: Subject) -> Stack:
    """d/dx in 1/m, (latitude, longitude), centred and periodic."""
    step = np.deg2rad(360.0 / subject.grid.nlon) * EARTH_RADIUS * _cosine(subject)
    return np.asarray((np.roll(plane, -1, axis=1) - np.roll(plane, 1, axis=1)) / (2 * step))


def _northward(plane: Stack, subject: Subject) -> Stack:
    """d/dy in 1/m."""
    y = np.deg2rad(np.asarray(subject.grid.latitudes)) * EARTH_RADIUS
    return np.asarray(np.gradient(plane, y, axis=0))


def _cosine(subject: Subject) -> Stack:
    latitude = np.deg2rad(np.asarray(subject.grid.latitudes))
    return np.asarray(np.maximum(np.cos(latitude), 1e-3)[:, None])


def _coriolis(subject: Subject) -> Stack:
    return np.asarray(2 * OMEGA * np.sin(np.deg2rad(np.asarray(subject.grid.latitudes)))[:, None])


_U, _V = _WINDS
_ON_THE_CONTINENTS: Final = Alignment(
    "orientation on the continents",
    continents,
    0.2,
    "slow wind over land and high ground",
    (_U, _V, f"10m_{_U}", f"10m_{_V}"),
)
_IN_BALANCE: Final = tuple(
    Alignment(name, evidence, least, what, variables, middle=True)
    for name, evidence, least, what, variables in (
        ("thermal wind", thermal_wind, 0.4, "thermal wind", ("temperature", _V)),
        ("zonal thermal wind", zonal_thermal_wind, 0.4, "thermal wind", ("temperature", _U)),
        ("geostrophic wind", geostrophic_wind, 0.5, "geostrophic wind", ("geopotential", _V)),
        (
            "zonal geostrophic wind",
            zonal_geostrophic_wind,
            0.5,
            "geostrophic wind",
            ("geopotential", _U),
        ),
    )
)
_OF_ONE_COLUMN: Final = (
    Alignment("thickness", thickness, 0.6, "thick warm layers", ("geopotential", "temperature")),
    Alignment(
        "sea level pressure and 1000 hPa",
        surface_pressure,
        0.7,
        "pressure that lifts the 1000 hPa surface",
        ("mean_sea_level_pressure", "geopotential"),
    ),
    Alignment(
        "2 m temperature and 1000 hPa",
        surface_temperature,
        0.4,
        "warm ground below warm air",
        ("2m_temperature", "temperature"),
    ),
    Alignment("10 m wind u and 1000 hPa", surface_wind("u"), 0.6, "one wind", (f"10m_{_U}", _U)),
    Alignment("10 m wind v and 1000 hPa", surface_wind("v"), 0.6, "one wind", (f"10m_{_V}", _V)),
)
_OF_ASCENT: Final = (
    Alignment(
        "continuity",
        continuity,
        0.08,
        "rising air above convergence",
        ("vertical_velocity",),
        middle=True,
    ),
    Alignment(
        "humidity and ascent", moist_ascent, 0.15, "moist air that rises", ("specific_humidity",)
    ),
)


def alignments(tolerance: float = 1.0, climatology: Climatology = EARTH) -> tuple[Alignment, ...]:
    """All of them. Correlations of sound analyses stand in `tests/analysis/test_checks.py`."""
    return tuple(
        replace(one, tolerance=tolerance, lead=climatology.leads.get(one.name, climatology.lead))
        for one in (_ON_THE_CONTINENTS, *_IN_BALANCE, *_OF_ONE_COLUMN, *_OF_ASCENT)
    )
