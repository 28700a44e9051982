"""Between statistics as arrays and as rows of a table, which add: sum, weight and value.

A row's `sum` and `weight` are of the statistic, so that the average over many rows is the sum of
the sums over that of the weights; its `value` is the score of this one forecast. The weight is the
share of the sphere that lies in the region and was observed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mosaic_core.channels import VARIABLES, Channels
from mosaic_core.errors import ConfigurationError
from mosaic_core.verification.energy import Band, Energy, in_band
from mosaic_core.verification.events import Counts, Event, brier, split_field
from mosaic_core.verification.regions import Weights
from mosaic_core.verification.statistics import scores

Array = NDArray[np.float64]

ROOTS: Final[Mapping[str, str]] = {
    "rmse": "mse",
    "spread": "spread_variance",
    "truth_deviation": "truth_variance",
    "rmse_persistence": "mse_persistence",
    "rmse_climatology": "mse_climatology",
}
"""Metrics whose value is the root of the statistic that adds."""

ENERGY: Final = "kinetic_energy"
_EVENTS = ("brier_", "fair_brier_", "base_rate_")
_METRICS = {statistic: metric for metric, statistic in ROOTS.items()}


class Line(NamedTuple):
    """Where a statistic belongs; `level` is 0 at the surface."""

    variable: str
    level: int
    region: str
    lead_hours: int

    @property
    def short(self) -> str:
        """`z500`, `msl`"""
        return short_name(self.variable, self.level)


def score_rows(
    found: Mapping[str, Array],
    channels: Channels,
    weights: Weights,
    observed: Array | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of statistics (channel, region).

    Args:
        observed: share of the sphere that was observed (channel, region), where that is not all of
            each region; one without any has no row.
    """
    shares = np.broadcast_to(weights.areas, (len(channels), len(weights.names)))
    shares = shares if observed is None else observed
    for statistic, values in found.items():
        metric = _METRICS.get(statistic, statistic)
        for i, channel in enumerate(channels):
            for j, region in enumerate(weights.names):
                mean, weight = float(values[i, j]), float(shares[i, j])
                if weight == 0.0:
                    continue
                yield {
                    "variable": channel.variable,
                    "level": channel.level or 0,
                    "region": region,
                    "metric": metric,
                    "sum": mean * weight,
                    "weight": weight,
                    "value": math.sqrt(mean) if metric in ROOTS else mean,
                }


def energy_rows(
    energies: Mapping[int, Energy], region: str, bands: Iterable[Band]
) -> Iterator[dict[str, Any]]:
    """Rows of kinetic energies by band (m2 s-2); metrics are `members_l21-31` and so on."""
    chosen = tuple(bands)
    for level, energy in energies.items():
        for band in chosen:
            for part, spectrum in energy.parts().items():
                value = float(in_band(spectrum, band))
                yield {
                    "variable": ENERGY,
                    "level": level,
                    "region": region,
                    "metric": f"{part}_l{band[0]}-{band[1]}",
                    "sum": value,
                    "weight": 1.0,
                    "value": value,
                }


def event_rows(counts: Mapping[Event, Counts], weights: Weights) -> Iterator[dict[str, Any]]:
    """Rows of events; metrics are `brier_above_15`, `fair_brier_above_15`, `base_rate_above_15`.

    What the Brier score is made of and the ROC do not come of averages: they are in the arrays.
    """
    for event, count in counts.items():
        variable, level = event.line
        made = brier(count)
        found = {name: made[name] for name in ("brier", "fair_brier")}
        for metric, values in {**found, "base_rate": count.base_rate}.items():
            for j, region in enumerate(weights.names):
                weight = float(count.area[j])
                if weight == 0.0:
                    continue
                yield {
                    "variable": variable,
                    "level": level,
                    "region": region,
                    "metric": f"{metric}_{event.name}",
                    "sum": float(values[j]) * weight,
                    "weight": weight,
                    "value": float(values[j]),
                }


def scores_of(averages: Mapping[str, float]) -> dict[str, float]:
    """Scores from averaged statistics by metric, with the references' RMSE beside them.

    Of kinetic energy, `members_l21-31` and `mean_l21-31` are ratios to truth. Of events,
    `brier_skill_above_15` is against the base rate of the same average.
    """
    events = {m: v for m, v in averages.items() if m.startswith(_EVENTS)}
    out = {**events, **_brier_skills(events)}
    others = {m: v for m, v in averages.items() if m not in events}
    if "rmse" not in others:
        return out | {
            metric: value / others[f"truth_{metric.partition('_')[2]}"]
            for metric, value in others.items()
            if not metric.startswith("truth_")
        }
    made = scores({ROOTS.get(m, m): np.asarray(value) for m, value in others.items()})
    out |= {name: float(value) for name, value in made.items()}
    for reference in ("rmse_persistence", "rmse_climatology"):
        if reference in averages:
            out[reference] = math.sqrt(averages[reference])
    return out


def _brier_skills(events: Mapping[str, float]) -> dict[str, float]:
    """NaN where the event always or never happened."""
    made = {}
    for metric, base in events.items():
        if metric.startswith("base_rate_"):
            name = metric.removeprefix("base_rate_")
            uncertainty = base * (1 - base)
            skill = 1 - events[f"brier_{name}"] / uncertainty if uncertainty > 0 else math.nan
            made[f"brier_skill_{name}"] = skill
    return made


def short_name(variable: str, level: int) -> str:
    """`z500`, `msl`, `kinetic_energy250`"""
    known = VARIABLES.get(variable)
    return f"{known.short_name if known else variable}{level or ''}"


def parse_variable(text: str) -> tuple[str, int]:
    """(variable, level) of `z500`, `geopotential_500`, `msl` or `kinetic_energy_250`.

    Raises:
        ConfigurationError: no such variable.
    """
    stem, _, tail = text.rpartition("_")
    if stem == ENERGY and tail.isdigit():
        return ENERGY, int(tail)
    for variable in VARIABLES.values():
        rest = text.removeprefix(variable.short_name)
        if (
            rest != text
            and rest.isdigit() == variable.on_levels
            and (rest or not variable.on_levels)
        ):
            return variable.name, int(rest or 0)
    try:
        return split_field(text)
    except ConfigurationError as error:
        shorts = ", ".join(
            f"{v.short_name}500" if v.on_levels else v.short_name for v in VARIABLES.values()
        )
        raise ConfigurationError(
            f"no variable {text!r}", f"a name such as geopotential_500, or {shorts}"
        ) from error
