"""The continuous ranked probability score of a normal distribution; of members see `members`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Array = NDArray[np.float64]


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
