"""Whether one forecast is better than another: paired differences of correlated cycles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

Array = NDArray[np.float64]

FEWEST: Final = 10
"""Pairs below which nothing is called significant."""

_LARGEST_CORRELATION: Final = 0.99


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences.

    Attributes:
        pairs: how many there are.
        effective: how many independent ones tell as much about the mean.
        p: chance of a mean as far from 0 where there is no difference, two-sided; NaN of too few.
    """

    mean: float
    pairs: int
    effective: float
    p: float

    def significant(self, level: float = 0.05) -> bool:
        return bool(self.p < level)


def paired(differences: Mapping[int, float]) -> Difference:
    """A t-test of the mean of differences whose correlation in time is that of an AR(2) process.

    The variance of the mean is larger than that of independent differences by the factor
    (1 - r1 a1 - r2 a2) / (1 - a1 - a2)^2, where r are the correlations at one and two steps and a
    the coefficients that they give (Yule and Walker); so Geer (2016) for scores of weather
    forecasts. It is never taken below 1, and differences that are all the same are significant
    unless they are 0.

    Args:
        differences: by time, in any units; gaps are allowed, the commonest distance is the step.
    """
    values = np.array([differences[time] for time in sorted(differences)], float)
    count = len(values)
    mean = float(values.mean()) if count else np.nan
    if count < FEWEST:
        return Difference(mean, count, float(count), np.nan)
    deviation = float(values.std(ddof=1))
    if deviation <= 1e-12 * abs(mean) or deviation == 0.0:
        return Difference(mean, count, float(count), 0.0 if mean else 1.0)
    effective = count / inflation(*_correlations(differences))
    freedom = max(effective - 1.0, 1.0)
    ratio = abs(mean) / (deviation / np.sqrt(effective))
    return Difference(mean, count, effective, float(2 * student.sf(ratio, freedom)))


def inflation(r1: float, r2: float) -> float:
    """How much larger the variance of the mean is than that of independent values, at least 1."""
    r1 = float(np.clip(r1, -_LARGEST_CORRELATION, _LARGEST_CORRELATION))
    # what an AR(2) process can have at two steps, given the first
    r2 = float(np.clip(r2, 2 * r1**2 - 1 + 1e-3, _LARGEST_CORRELATION))
    a1 = r1 * (1 - r2) / (1 - r1**2)
    a2 = (r2 - r1**2) / (1 - r1**2)
    return max(1.0, (1 - r1 * a1 - r2 * a2) / (1 - a1 - a2) ** 2)


def _correlations(differences: Mapping[int, float]) -> tuple[float, float]:
    """At one and two steps, over the pairs that there are; 0 of none."""
    times = np.array(sorted(differences))
    values = np.array([differences[time] for time in times.tolist()], float)
    anomalies = dict(zip(times.tolist(), values - values.mean(), strict=True))
    gaps, counts = np.unique(np.diff(times), return_counts=True)
    step = int(gaps[counts.argmax()])
    variance = values.var()

    def at(lag: int) -> float:
        products = [
            a * anomalies[time + lag * step]
            for time, a in anomalies.items()
            if time + lag * step in anomalies
        ]
        return float(np.sum(products) / len(values) / variance) if products else 0.0

    return at(1), at(2)
