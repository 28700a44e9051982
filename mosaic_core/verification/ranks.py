"""Rank histograms of truth among the members, and how far they are from flat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mosaic_core.verification.members import Members
from mosaic_core.verification.regions import Weights

Array = NDArray[np.float64]


def rank_histogram(members: Array, truth: Array, weights: Weights) -> Array:
    """Share of each region's area where truth has each rank, (..., region, number + 1).

    Rank 0 lies below every member. Where truth equals members, its area is shared evenly by the
    ranks that it may have. Flat where truth is like a member (Hamill 2001). Points where truth is
    NaN have no rank; a region without any other is NaN.
    """
    return ranks_of(Members.of(members, truth), truth, weights)


def ranks_of(members: Members, truth: Array, weights: Weights) -> Array:
    """`rank_histogram` of members that have been passed over."""
    missing, count = np.isnan(truth), members.count
    below, equal = members.below, members.equal
    if equal.any():
        parts = np.where(missing, 0.0, 1.0 / (equal + 1.0))
        # what a tie shares begins at its first rank and ends after its last
        begins = weights.histogram(below, count + 2, parts)
        ends = weights.histogram(below + equal + 1, count + 2, parts)
        sums = np.cumsum(begins - ends, axis=-1)[..., :-1]
    else:
        sums = weights.histogram(below, count + 1, (~missing).astype(np.float64))
    areas = weights.shares(~missing)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(areas > 0, sums / areas, np.nan)


def unevenness(shares: Array) -> Array:
    """Root mean square of each rank's share over its expected one, less 1; (..., rank) to (...).

    0 is flat; it does not depend on the number of cases.
    """
    return np.asarray(np.sqrt(((shares * shares.shape[-1] - 1.0) ** 2).mean(-1)))


def delta(shares: Array, cases: float) -> Array:
    """Reliability of a rank histogram (Candille and Talagrand 2005), (..., rank) to (...).

    The squared distance of the counts from flat over what `cases` independent draws of a reliable
    ensemble have by chance, N M / (M + 1): about 1 is reliable, far above 1 is not. Points of a
    grid that lie near each other are not independent, so that a reliable ensemble is above 1 on a
    grid by about the number of points that vary as one.
    """
    ranks = shares.shape[-1]
    chance = cases * (ranks - 1) / ranks
    return np.asarray(((cases * (shares - 1.0 / ranks)) ** 2).sum(-1) / chance)


def outliers(shares: Array) -> Array:
    """How often truth lies outside all members, over how often it should; (..., rank) to (...)."""
    return np.asarray((shares[..., 0] + shares[..., -1]) * shares.shape[-1] / 2.0)
