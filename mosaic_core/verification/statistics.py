"""Statistics that add up: area means of errors, variances and CRPS, and the scores made of them.

A score over many cycles is made of the mean of its statistics over them, never of the mean of the
scores: roots and ratios are taken last.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from mosaic_core.errors import ConfigurationError
from mosaic_core.verification.regions import Weights

Array = NDArray[np.float64]


def statistics(
    members: Array,
    truth: Array,
    weights: Weights,
    *,
    persistence: Array | None = None,
    climatology: Array | None = None,
    deviation: Array | None = None,
) -> dict[str, Array]:
    """Area means by region of what scores are made of; each (..., region).

    `mse`, `bias` and `mae` of the ensemble mean; `spread_variance`, the unbiased variance times
    (M + 1) / M, which equals the MSE of the mean where truth is like a member (Fortin et al. 2014;
    absent with one member); `fair_crps` (Ferro 2014; with one member the absolute error);
    `mse_persistence`; `mse_climatology`, `anomaly_product` and `anomaly_square` (of the mean) for
    the anomaly correlation; `crps_climatology` of a normal distribution (Gneiting et al. 2005).

    Args:
        members: (number, ..., latitude, longitude), the channel's units.
        truth, persistence, climatology, deviation: (..., latitude, longitude); persistence is the
            analysis that the forecast started from, deviation the climatological one.

    Raises:
        ConfigurationError: shapes that do not belong together.
    """
    given = {"persistence": persistence, "climatology": climatology, "deviation": deviation}
    for name, field in {"truth": truth, **given}.items():
        if field is not None and field.shape != members.shape[1:]:
            raise ConfigurationError(f"{name} of {field.shape}", f"{members.shape[1:]}")
    members, truth = np.asarray(members, np.float64), np.asarray(truth, np.float64)
    mean = members.mean(0)
    error = mean - truth
    fields = {
        "mse": error**2,
        "bias": error,
        "mae": np.abs(error),
        "fair_crps": fair_crps(members, truth),
    }
    count = len(members)
    if count > 1:
        fields["spread_variance"] = members.var(axis=0, ddof=1) * (count + 1) / count
    if persistence is not None:
        fields["mse_persistence"] = (persistence - truth) ** 2
    if climatology is not None:
        fields["mse_climatology"] = (truth - climatology) ** 2
        fields["anomaly_product"] = (mean - climatology) * (truth - climatology)
        fields["anomaly_square"] = (mean - climatology) ** 2
        if deviation is not None:
            fields["crps_climatology"] = normal_crps(climatology, deviation, truth)
    return {name: weights.mean(field) for name, field in fields.items()}


def fair_crps(members: Array, truth: Array) -> Array:
    """CRPS unbiased in ensemble size, at every point: members (number, ...), truth (...).

    E|x - y| - E|x - x'| / 2, the second mean over pairs of different members (Ferro 2014), by
    sorting. With one member the absolute error.
    """
    count = len(members)
    distance = np.abs(members - truth).mean(0)
    if count == 1:
        return np.asarray(distance)
    ranks = 2.0 * np.arange(1, count + 1) - count - 1
    pairs = np.tensordot(ranks, np.sort(members, axis=0), axes=1) / (count * (count - 1))
    return np.asarray(distance - pairs)


def normal_crps(mean: Array, deviation: Array, truth: Array) -> Array:
    """CRPS of a normal distribution (Gneiting et al. 2005, equation 5); any shape.

    Where the deviation is 0 it is the absolute error.
    """
    error = np.asarray(truth - mean, np.float64)
    width = np.asarray(deviation, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = error / width
        density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        crps = width * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return np.asarray(np.where(width > 0, crps, np.abs(error)))


def rank_histogram(members: Array, truth: Array, weights: Weights) -> Array:
    """Share of each region's area where truth has each rank, (..., region, number + 1).

    Rank 0 lies below every member. Where truth equals members, its area is shared evenly by the
    ranks that it may have. Flat where truth is like a member (Hamill 2001).
    """
    below = (members < truth).sum(0)
    equal = (members == truth).sum(0)
    shares = [
        weights.mean(((below <= rank) & (rank <= below + equal)) / (equal + 1.0))
        for rank in range(len(members) + 1)
    ]
    return np.stack(shares, axis=-1)


def scores(means: Mapping[str, Array]) -> dict[str, Array]:
    """Scores of statistics that have been averaged; those that they suffice for.

    `rmse`, `bias`, `mae`, `fair_crps`, `spread`, `spread_skill` (spread over RMSE, 1 where the
    ensemble knows its error), `to_persistence` and `to_climatology` (RMSE over that of the
    reference, below 1 is better), `acc` (anomaly correlation, not centred), `crpss` (1 - CRPS over
    that of climatology).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        made = {
            "rmse": np.sqrt(means["mse"]),
            "bias": means["bias"],
            "mae": means["mae"],
            "fair_crps": means["fair_crps"],
        }
        if "spread_variance" in means:
            made["spread"] = np.sqrt(means["spread_variance"])
            made["spread_skill"] = np.sqrt(means["spread_variance"] / means["mse"])
        if "mse_persistence" in means:
            made["to_persistence"] = np.sqrt(means["mse"] / means["mse_persistence"])
        if "mse_climatology" in means:
            made["to_climatology"] = np.sqrt(means["mse"] / means["mse_climatology"])
            product = means["anomaly_square"] * means["mse_climatology"]
            made["acc"] = means["anomaly_product"] / np.sqrt(product)
        if "crps_climatology" in means:
            made["crpss"] = 1 - means["fair_crps"] / means["crps_climatology"]
    return made


class Average:
    """The mean of statistics over forecasts, each with its weight; what is never given is absent.

    Raises:
        ConfigurationError: from `means`, when nothing was added.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Array] = {}
        self._weights: dict[str, float] = {}

    def add(self, values: Mapping[str, Array], weight: float = 1.0) -> None:
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, np.zeros(())) + weight * np.asarray(value)
            self._weights[name] = self._weights.get(name, 0.0) + weight

    def means(self) -> dict[str, Array]:
        if not self._sums:
            raise ConfigurationError("the average of no forecast", "at least one")
        return {name: value / self._weights[name] for name, value in self._sums.items()}
