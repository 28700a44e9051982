"""Continuous ranked probability scores at every point."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]


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
