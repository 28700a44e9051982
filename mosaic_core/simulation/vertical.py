"""The sigma coordinate: twelve layers, and the matrices that act on a column."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mosaic_core.simulation.planet import GAS_CONSTANT

Real: TypeAlias = NDArray[np.float64]

HALF_LEVELS: Final = np.array(
    [0, 0.035, 0.08, 0.13, 0.19, 0.26, 0.35, 0.46, 0.59, 0.72, 0.84, 0.94, 1.0]
)
LAYERS: Final = len(HALF_LEVELS) - 1
THICKNESS: Final[Real] = np.diff(HALF_LEVELS)


def _log_ratio() -> Real:
    """ln(σ_{k+1/2} / σ_{k-1/2}); zero for the top layer, where no use of it remains."""
    ratio = np.zeros(LAYERS)
    ratio[1:] = np.log(HALF_LEVELS[2:] / HALF_LEVELS[1:-1])
    return ratio


_RATIO: Final = _log_ratio()
_ALPHA: Final = np.where(
    np.arange(LAYERS) == 0, np.log(2.0), 1 - HALF_LEVELS[:-1] / THICKNESS * _RATIO
)

FULL_LEVELS: Final[Real] = HALF_LEVELS[1:] * np.exp(-_ALPHA)
"""Where a layer's temperature and geopotential belong, so that both are hydrostatic exactly."""

HYDROSTATIC: Final[Real] = GAS_CONSTANT * (
    np.diag(_ALPHA) + np.triu(np.broadcast_to(_RATIO, (LAYERS, LAYERS)), 1)
)
"""Geopotential above the ground of a column of temperatures (Simmons and Burridge 1981)."""

CONVERSION: Final[Real] = np.diag(_ALPHA) + np.tril(np.outer(_RATIO / THICKNESS, THICKNESS), -1)
"""τ: ω / p = v·∇ln ps - τ (D + v·∇ln ps)."""

SIGMA_DOT: Final[Real] = (
    HALF_LEVELS[1:-1, None] - (np.arange(LAYERS) <= np.arange(LAYERS - 1)[:, None])
) * THICKNESS
"""Vertical velocity at the inner half levels from the mass divergence of the layers."""
