"""Hydrostatic balance between geopotential and temperature."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mosaic_core.analysis.checks.alignment import R_DRY
from mosaic_core.analysis.checks.result import CheckResult, Stack, Subject, judge


@dataclass(frozen=True)
class Hydrostatic:
    """Thickness of each layer against its mean virtual temperature.

    z(above) - z(below) = R Tv ln(p_below / p_above), with the trapezoidal mean of Tv = T (1 + 0.608
    q). Curvature between levels 100 to 200 hPa apart costs up to half a percent, ground above the
    level more; so the root mean square difference may be 3 percent of the thickness.
    """

    name: str = "hydrostatic balance"
    largest: float = 0.03

    def run(self, subject: Subject) -> Iterable[CheckResult]:
        levels = subject.levels("geopotential", "temperature")
        layers = [
            (below, above) for below, above in itertools.pairwise(levels) if below / above <= 2.01
        ]
        if not layers:
            found = "geopotential and temperature are not there together on neighbouring levels"
            yield CheckResult(self.name, "skipped", found)
            return
        failures, channels, values = [], set(), {}
        for below, above in layers:
            relative = self._relative(subject, below, above)
            weights = subject.weights / subject.weights.mean()
            for time, plane in zip(subject.times, relative, strict=True):
                rms = float(np.sqrt((plane**2 * weights).mean()))
                values[f"{below}-{above} hPa {time}"] = rms
                if not rms <= self.largest:
                    failures.append(f"{below} to {above} hPa is off by {100 * rms:.3g} % at {time}")
                    channels |= {f"{v}_{p}" for v in _NAMES for p in (below, above)}
        yield judge(
            self.name,
            failures,
            f"{len(layers)} layers within {100 * max(values.values()):.2g} %",
            f"thickness within {100 * self.largest:g} % of that of the temperature",
            channels=sorted(channels),
            times=subject.times,
            values=values,
        )

    def _relative(self, subject: Subject, below: int, above: int) -> Stack:
        z, tv = (
            [subject.stack("geopotential", lv) for lv in (below, above)],
            [_virtual_temperature(subject, lv) for lv in (below, above)],
        )
        expected = R_DRY * np.log(below / above) * (tv[0] + tv[1]) / 2
        return np.asarray((z[1] - z[0] - expected) / expected)


_NAMES = ("geopotential", "temperature")


def _virtual_temperature(subject: Subject, level: int) -> Stack:
    temperature = subject.stack("temperature", level)
    if not subject.has("specific_humidity", level):
        return temperature
    return temperature * (1 + 0.608 * subject.stack("specific_humidity", level))
