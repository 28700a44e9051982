"""Statistics that add up: area means of errors, variances and CRPS, and the scores made of them.

A score over many cycles is made of the mean of its statistics over them, never of the mean of the
scores: roots and ratios are taken last.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mosaic_core.errors import ConfigurationError
from mosaic_core.verification.crps import normal_crps
from mosaic_core.verification.members import Members
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
    `truth_variance`, of truth about its mean over the region; `mse_persistence`; `mse_climatology`,
    `anomaly_product` and `anomaly_square` (of the mean) for the anomaly correlation;
    `crps_climatology` of a normal distribution (Gneiting et al. 2005).

    Args:
        members: (number, ..., latitude, longitude), the channel's units.
        truth, persistence, climatology, deviation: (..., latitude, longitude); persistence is the
            analysis that the forecast started from, deviation the climatological one. Points where
            truth is NaN count nowhere (`Weights.shares` says how much is left; means are NaN where
            nothing is); a member that is NaN makes its region's means NaN.

    Raises:
        ConfigurationError: shapes that do not belong together, or a reference that is missing where
            truth is not.
    """
    given = {"persistence": persistence, "climatology": climatology, "deviation": deviation}
    for name, field in {"truth": truth, **given}.items():
        if field is not None and field.shape != members.shape[1:]:
            raise ConfigurationError(f"{name} of {field.shape}", f"{members.shape[1:]}")
    return statistics_of(
        Members.of(members, truth), truth, weights,
        persistence=persistence, climatology=climatology, deviation=deviation,
    )  # fmt: skip


def statistics_of(
    members: Members,
    truth: Array,
    weights: Weights,
    *,
    persistence: Array | None = None,
    climatology: Array | None = None,
    deviation: Array | None = None,
    of_truth: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """`statistics` of members that have been passed over.

    Args:
        of_truth: `truth_statistics` of the same truth, where they are known already.
    """
    truth = np.asarray(truth, np.float64)
    given = {"persistence": persistence, "climatology": climatology, "deviation": deviation}
    observed = _observed(truth, given)
    error, count = members.error, members.count
    fields = {
        "mse": error**2,
        "bias": error,
        "mae": np.abs(error),
        "fair_crps": members.crps,
    }
    if count > 1:
        fields["spread_variance"] = members.variance * (count + 1) / count
    if persistence is not None:
        fields["mse_persistence"] = (persistence - truth) ** 2
    if climatology is not None:
        actual = truth - climatology
        anomaly = error + actual
        fields["anomaly_product"] = anomaly * actual
        fields["anomaly_square"] = anomaly**2
    found = {name: weights.mean(field, observed) for name, field in fields.items()}
    if of_truth is None:
        of_truth = truth_statistics(truth, weights, climatology=climatology, deviation=deviation)
    return found | dict(of_truth)


def truth_statistics(
    truth: Array,
    weights: Weights,
    *,
    climatology: Array | None = None,
    deviation: Array | None = None,
) -> dict[str, Array]:
    """Those of `statistics` that no member enters, the same for every forecast that comes true."""
    truth = np.asarray(truth, np.float64)
    observed = _observed(truth, {"climatology": climatology, "deviation": deviation})
    found = {"truth_variance": _variance(truth, weights, observed)}
    if climatology is not None:
        found["mse_climatology"] = weights.mean((truth - climatology) ** 2, observed)
        if deviation is not None:
            crps = normal_crps(climatology, deviation, truth)
            found["crps_climatology"] = weights.mean(crps, observed)
    return found


def _variance(field: Array, weights: Weights, observed: NDArray[np.bool_] | None) -> Array:
    """Variance within each region; about the mean of all points, so that little cancels."""
    where = True if observed is None else observed
    count = np.maximum(np.sum(np.broadcast_to(where, field.shape), axis=(-2, -1), keepdims=True), 1)
    shifted = field - np.sum(field, axis=(-2, -1), keepdims=True, where=where) / count
    square, mean = (weights.mean(values, observed) for values in (shifted**2, shifted))
    return np.asarray(np.maximum(square - mean**2, 0.0))


def _observed(truth: Array, references: Mapping[str, Array | None]) -> NDArray[np.bool_] | None:
    """Where truth is known; None where it is everywhere."""
    missing = np.isnan(truth)
    for name, field in references.items():
        if field is not None and (np.isnan(field) & ~missing).any():
            raise ConfigurationError(
                f"{name} is missing where truth is there", "a reference wherever there is truth"
            )
    return ~missing if missing.any() else None


def scores(means: Mapping[str, Array]) -> dict[str, Array]:
    """Scores of statistics that have been averaged; those that they suffice for.

    `rmse`, `nrmse` (RMSE over the standard deviation of truth within the region), `bias`, `mae`,
    `fair_crps`, `spread`, `spread_skill` (spread over RMSE, 1 where the ensemble knows its error),
    `to_persistence` and `to_climatology` (RMSE over that of the
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
        if "truth_variance" in means:
            made["nrmse"] = np.sqrt(means["mse"] / means["truth_variance"])
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

    A weight is a number, or an array of the values' shape where they have different ones; where it
    is 0 the value does not count, whatever it is.

    Raises:
        ConfigurationError: from `means`, when nothing was added.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Array] = {}
        self._weights: dict[str, Array] = {}

    def add(self, values: Mapping[str, Array], weight: float | Array = 1.0) -> None:
        share = np.asarray(weight, np.float64)
        for name, value in values.items():
            part = np.where(share > 0, share * np.asarray(value), 0.0)
            self._sums[name] = self._sums.get(name, np.zeros(())) + part
            self._weights[name] = self._weights.get(name, np.zeros(())) + share

    def means(self) -> dict[str, Array]:
        if not self._sums:
            raise ConfigurationError("the average of no forecast", "at least one")
        with np.errstate(divide="ignore", invalid="ignore"):
            return {name: value / self._weights[name] for name, value in self._sums.items()}
