"""Channels that a source does not give: derived by a named rule, or filled by a written override.

Nothing here happens unless the configuration of the source names it. A rule has its formula and
its source; a fill is not the atmosphere's value, and marks the analysis degraded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from mosaic_core.analysis.fields import FieldKey, Plane
from mosaic_core.channels import Channel
from mosaic_core.errors import ConfigurationError

STANDARD_GRAVITY: Final = 9.80665
"""m s-2; geopotential is geopotential height in gpm times this, by definition of the gpm."""

RuleName = Literal[
    "geopotential_from_height",
    "specific_humidity_from_relative_humidity",
    "specific_humidity_from_relative_humidity_over_water",
]
FillName = Literal["copy_from", "linear", "taper_to_top", "zero"]


@dataclass(frozen=True)
class Rule:
    """Makes `variable` at a level from other quantities at the same level (hPa)."""

    variable: str
    needs: tuple[str, ...]
    formula: Callable[[int, Mapping[str, Plane]], Plane]
    text: str


def saturation_vapour_pressure(temperature: Plane, phase: Literal["mixed", "water"]) -> Plane:
    """Saturation vapour pressure in Pa at a temperature in K.

    IFS Documentation, Part IV, chapter "Clouds and large-scale precipitation" and section on the
    thermodynamics of moist air: Tetens' form e = 611.21 exp(a3 (T - 273.16) / (T - a4)), over water
    (a3, a4) = (17.502, 32.19), over ice (22.587, -0.7). Mixed: water above 273.16 K, ice below
    250.16 K, weighted by ((T - 250.16) / 23)^2 in between.
    """
    t = temperature.astype(np.float64)
    water = 611.21 * np.exp(17.502 * (t - 273.16) / (t - 32.19))
    if phase == "water":
        return water.astype(np.float32)
    ice = 611.21 * np.exp(22.587 * (t - 273.16) / (t + 0.7))
    share = np.clip((t - 250.16) / (273.16 - 250.16), 0.0, 1.0) ** 2
    return np.asarray(share * water + (1 - share) * ice, np.float32)


def specific_humidity(
    relative_humidity: Plane, temperature: Plane, level: int, phase: Literal["mixed", "water"]
) -> Plane:
    """Specific humidity in kg/kg from relative humidity (%), temperature (K) and pressure (hPa).

    q = eps e / (p - (1 - eps) e) with e = RH/100 e_sat(T) and eps = Rd/Rv = 0.621981, as in the
    IFS. Relative humidity below zero (packing and spectral truncation give some) counts as zero,
    and e is at most p.
    """
    eps = 287.0597 / 461.5250
    pressure = 100.0 * level
    e = np.maximum(relative_humidity, 0) / 100 * saturation_vapour_pressure(temperature, phase)
    e = np.minimum(e.astype(np.float64), pressure)
    return np.asarray(eps * e / (pressure - (1 - eps) * e), np.float32)


def _humidity_rule(phase: Literal["mixed", "water"]) -> Rule:
    return Rule(
        "specific_humidity",
        ("relative_humidity", "temperature"),
        lambda level, f: specific_humidity(f["relative_humidity"], f["temperature"], level, phase),
        f"q = eps e/(p - (1 - eps) e), e = RH e_sat(T), IFS Tetens saturation ({phase}), RH >= 0",
    )


RULES: Final[dict[RuleName, Rule]] = {
    "geopotential_from_height": Rule(
        "geopotential",
        ("geopotential_height",),
        lambda _, fields: (fields["geopotential_height"] * np.float64(STANDARD_GRAVITY)).astype(
            np.float32
        ),
        f"z = gh * {STANDARD_GRAVITY}",
    ),
    "specific_humidity_from_relative_humidity": _humidity_rule("mixed"),
    "specific_humidity_from_relative_humidity_over_water": _humidity_rule("water"),
}


def rule_for(
    key: FieldKey, allowed: tuple[RuleName, ...], available: Set[FieldKey]
) -> tuple[RuleName, Rule] | None:
    """The first allowed rule that can make `key` from what is available."""
    for name in allowed:
        rule = RULES[name]
        needs = {FieldKey(need, key.level) for need in rule.needs}
        if rule.variable == key.variable and needs <= available:
            return name, rule
    return None


@dataclass(frozen=True)
class Fill:
    """A written override for a channel that a source lacks.

    rule: `copy_from` the channel `channel`; `linear` in pressure between the nearest levels of the
    same variable above and below; `taper_to_top` in proportion to pressure from the nearest level
    below (zero at the top of the atmosphere, as for vertical velocity); `zero`.
    """

    rule: FillName
    channel: str | None = None

    def __post_init__(self) -> None:
        if (self.rule == "copy_from") != (self.channel is not None):
            raise ConfigurationError(
                f"fill rule {self.rule!r} with channel {self.channel!r}",
                "a channel for copy_from, none otherwise",
            )

    def needs(self, key: FieldKey, available: Set[FieldKey]) -> tuple[FieldKey, ...]:
        """The fields this fill is made of.

        Raises:
            ConfigurationError: the rule cannot be followed with what is there.
        """
        levels = sorted(k.level for k in available if k.variable == key.variable and k.level)
        above = [lv for lv in levels if lv < key.level]
        below = [lv for lv in levels if lv > key.level]
        if self.rule == "zero":
            return ()
        if self.rule == "copy_from":
            wanted = FieldKey.of(Channel.parse(self.channel or ""))
            if wanted in available:
                return (wanted,)
        if self.rule == "taper_to_top" and below:
            return (FieldKey(key.variable, below[0]),)
        if self.rule == "linear" and above and below:
            return FieldKey(key.variable, above[-1]), FieldKey(key.variable, below[0])
        raise ConfigurationError(
            f"{key} cannot be filled by {self.rule!r}",
            "the fields that the rule needs in the same analysis",
            "name another rule under `allow_missing`",
        )

    def text(self, needs: tuple[FieldKey, ...]) -> str:
        return f"{self.rule} ({', '.join(map(str, needs))})" if needs else self.rule

    def apply(
        self, key: FieldKey, needs: tuple[FieldKey, ...], planes: Mapping[FieldKey, Plane]
    ) -> Plane:
        if self.rule == "zero":
            return np.zeros_like(next(iter(planes.values())))
        if self.rule == "copy_from":
            return planes[needs[0]].copy()
        if self.rule == "taper_to_top":
            return planes[needs[0]] * np.float32(key.level / needs[0].level)
        above, below = needs
        share = np.float32((key.level - above.level) / (below.level - above.level))
        return planes[above] * (1 - share) + planes[below] * share
