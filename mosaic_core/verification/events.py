"""Events that have a probability, such as wind above 15 m/s, and the scores of their probabilities.

Every score of an event is made of two sums by forecast probability: the area where k of M members
have it, and the part of that area where it happened. They add over forecasts; scores are taken
last, and the decomposition of the Brier score is exact, because k / M are all the probabilities
that there are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mosaic_core.channels import Channel, Channels
from mosaic_core.errors import ConfigurationError
from mosaic_core.verification.regions import Weights

Array = NDArray[np.float64]

_WINDS: Final[Mapping[str, tuple[str, str]]] = {
    "10m_wind": ("10m_u_component_of_wind", "10m_v_component_of_wind"),
    "wind": ("u_component_of_wind", "v_component_of_wind"),
}
"""Speeds (m/s), made of two components; on levels as in `wind_850`."""

_UNITS: Final = {"degC": ("K", 273.15, 1.0), "hPa": ("Pa", 0.0, 100.0)}
"""Units that thresholds can have besides the field's own: those, offset, factor."""


@dataclass(frozen=True)
class EventSettings:
    """One line of the configuration, written as for the product `probabilities`.

    Attributes:
        field: a channel, `10m_wind` or `wind_<hPa>`.
        above, below: thresholds; the event is > above, or < below.
        units: of the thresholds: `degC`, `hPa`; None for the field's own.

    Raises:
        ConfigurationError: no such field, no threshold, or units that are not the field's.
    """

    field: str
    above: tuple[float, ...] = ()
    below: tuple[float, ...] = ()
    units: str | None = None

    def __post_init__(self) -> None:
        own = field_channels(self.field).items[0].units
        allowed = [own, *(name for name, (base, _, _) in _UNITS.items() if base == own)]
        if not self.above and not self.below:
            raise ConfigurationError(f"event of {self.field}", "thresholds `above` or `below`")
        if self.units not in (None, *allowed):
            raise ConfigurationError(
                f"event of {self.field} in {self.units}", f"one of {', '.join(allowed)}"
            )


@dataclass(frozen=True)
class Event:
    """A field above or below a threshold, in the field's own units.

    Attributes:
        name: `above_15` or `below_0_degC`, as metrics are named after it.
    """

    field: str
    name: str
    above: bool
    threshold: float

    @property
    def label(self) -> str:
        return f"{self.field}_{self.name}"

    @property
    def line(self) -> tuple[str, int]:
        """Variable and level, 0 at the surface, of rows in the catalog."""
        return split_field(self.field)

    @property
    def channels(self) -> Channels:
        """What it is made of."""
        return field_channels(self.field)

    def happens(self, fields: Array, channels: Channels) -> NDArray[np.bool_]:
        """Where it does: (..., channel, latitude, longitude) to (..., latitude, longitude)."""
        parts = [fields[..., channels.index(c.name), :, :] for c in self.channels]
        values = parts[0] if len(parts) == 1 else np.hypot(*parts)
        return np.asarray(values > self.threshold if self.above else values < self.threshold)


def expand(settings: Iterable[EventSettings]) -> tuple[Event, ...]:
    """The events of all lines, one a threshold.

    Raises:
        ConfigurationError: one that is named twice.
    """
    made = []
    for line in settings:
        _, offset, factor = _UNITS.get(line.units or "", ("", 0.0, 1.0))
        suffix = f"_{line.units}" if line.units in _UNITS else ""
        for above, values in ((True, line.above), (False, line.below)):
            for value in values:
                name = f"{'above' if above else 'below'}_{value:g}{suffix}"
                made.append(Event(line.field, name, above, value * factor + offset))
    labels = [event.label for event in made]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ConfigurationError(f"events named twice: {', '.join(twice)}", "each once")
    return tuple(made)


def split_field(field: str) -> tuple[str, int]:
    """(name, level) of `10m_wind`, `wind_850` or a channel; the level is 0 at the surface."""
    stem, _, tail = field.rpartition("_")
    if field == "10m_wind":
        return field, 0
    if stem == "wind" and tail.isdigit():
        return stem, int(tail)
    channel = Channel.parse(field)
    return channel.variable, channel.level or 0


def field_of(label: str) -> str:
    """The field of an event's label, `10m_wind` of `10m_wind_above_15`."""
    return re.split("_(?:above|below)_", label)[0]


def field_channels(field: str) -> Channels:
    """The channels that a field is made of.

    Raises:
        ConfigurationError: no such field.
    """
    name, level = split_field(field)
    return Channels(tuple(Channel(part, level or None) for part in _WINDS.get(name, (name,))))


@dataclass(frozen=True, eq=False)
class Counts:
    """Sums of one event, or of several along leading axes; they add with `+`.

    Attributes:
        forecast: share of the sphere where k members have the event, (..., region, number + 1).
        happened: the part of it where the event happened.
    """

    forecast: Array
    happened: Array

    @classmethod
    def of(
        cls,
        members: NDArray[np.bool_],
        truth: NDArray[np.bool_],
        weights: Weights,
        observed: NDArray[np.bool_] | None = None,
    ) -> Counts:
        """From where it happens: members (number, latitude, longitude), truth without number.

        Args:
            observed: points that count, as truth; all by default.
        """
        votes, size = members.sum(0), len(members) + 1
        counts = np.ones(votes.shape) if observed is None else observed.astype(np.float64)
        return cls(
            weights.histogram(votes, size, counts), weights.histogram(votes, size, counts * truth)
        )

    def __add__(self, other: Counts) -> Counts:
        if self.forecast.shape[-1] != other.forecast.shape[-1]:
            raise ConfigurationError(
                f"ensembles of {self.forecast.shape[-1] - 1} and {other.forecast.shape[-1] - 1}",
                "one size, for the same probabilities",
            )
        return Counts(self.forecast + other.forecast, self.happened + other.happened)

    @property
    def probabilities(self) -> Array:
        """k / M, (number + 1,)"""
        return np.linspace(0.0, 1.0, self.forecast.shape[-1])

    @property
    def area(self) -> Array:
        """Share of the sphere that was counted, (..., region)."""
        return np.asarray(self.forecast.sum(-1))

    @property
    def base_rate(self) -> Array:
        """How often the event happened, (..., region)."""
        return np.asarray(_over(self.happened.sum(-1), self.area))

    @property
    def frequencies(self) -> Array:
        """How often it happened where each probability was forecast; NaN where none was."""
        return _over(self.happened, self.forecast)


def brier(counts: Counts) -> dict[str, Array]:
    """The Brier score and what it is made of, each (..., region).

    `brier` = `reliability` - `resolution` + `uncertainty` (Murphy 1973); `fair_brier` is unbiased
    in ensemble size (Ferro 2014; with one member it is `brier`); `brier_skill` is 1 - brier /
    uncertainty, against the base rate of the same forecasts, NaN where the event always or never
    happened.
    """
    p, area, base = counts.probabilities, counts.area, counts.base_rate
    members = len(p) - 1
    squares = counts.forecast * p**2 - 2 * p * counts.happened + counts.happened
    seen = np.where(counts.forecast > 0, counts.frequencies, 0.0)
    made = {
        "brier": _over(squares.sum(-1), area),
        "reliability": _over((counts.forecast * (p - seen) ** 2).sum(-1), area),
        "resolution": _over((counts.forecast * (seen - base[..., None]) ** 2).sum(-1), area),
        "uncertainty": base * (1 - base),
    }
    excess = (counts.forecast * p * (1 - p)).sum(-1) / max(members - 1, 1)
    made["fair_brier"] = made["brier"] - _over(excess, area)
    made["brier_skill"] = 1 - _over(made["brier"], made["uncertainty"])
    return made


def roc(counts: Counts) -> tuple[Array, Array, Array]:
    """Relative operating characteristic: (false alarm rate, hit rate, area under the curve).

    The rates are (..., region, number + 2): a warning where at least k members have the event, from
    k = M + 1 (never, 0) to 0 (always, 1). The area, (..., region), is by trapezoids; 0.5 tells
    nothing. NaN where the event always or never happened.
    """
    missed = counts.forecast - counts.happened
    rates = []
    for share in (missed, counts.happened):
        reversed_sums = np.cumsum(share[..., ::-1], axis=-1)
        curve = np.concatenate([np.zeros((*share.shape[:-1], 1)), reversed_sums], axis=-1)
        rates.append(_over(curve, curve[..., -1:]))
    false_alarms, hits = rates
    middle = (hits[..., 1:] + hits[..., :-1]) / 2
    return false_alarms, hits, np.asarray((np.diff(false_alarms, axis=-1) * middle).sum(-1))


def _over(part: Array, whole: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(whole > 0, part / whole, np.nan))
