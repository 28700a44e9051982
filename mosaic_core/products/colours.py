"""Colour scales whose lightness changes evenly, so that they read without colour vision too.

Made in Oklab (B. Ottosson, 2020, A perceptual color space for image processing): straight lines
between a few anchors, given as (lightness, hue in degrees, chroma).
"""

from __future__ import annotations

from functools import cache
from typing import Final, Literal

import numpy as np
from matplotlib.colors import BoundaryNorm, ListedColormap
from numpy.typing import NDArray

Anchors = tuple[tuple[float, float, float], ...]

PALETTES: Final[dict[str, Anchors]] = {
    "warmth": (
        (0.30, 285.0, 0.15),
        (0.62, 245.0, 0.12),
        (0.95, 200.0, 0.02),
        (0.62, 50.0, 0.14),
        (0.30, 22.0, 0.11),
    ),
    "pressure": (
        (0.38, 300.0, 0.14),
        (0.95, 300.0, 0.01),
        (0.50, 65.0, 0.11),
    ),
    "height": ((0.28, 285.0, 0.12), (0.60, 195.0, 0.09), (0.94, 100.0, 0.11)),
    "speed": ((0.97, 110.0, 0.02), (0.64, 190.0, 0.10), (0.30, 270.0, 0.11)),
    "spread": ((0.98, 90.0, 0.01), (0.66, 35.0, 0.13), (0.30, 330.0, 0.12)),
}

PERCENT: Final = (0.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0)
"""Classes of probabilities."""

# From Oklab to the cube roots of cone responses, and from those to linear sRGB.
_CONES: Final = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
_RGB: Final = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@cache
def palette(name: str, size: int = 256) -> ListedColormap:
    """The colour map `name`, with the ends also for values out of range."""
    anchors = np.array(PALETTES[name])
    hue = np.deg2rad(anchors[:, 1])
    lab = np.column_stack((anchors[:, 0], anchors[:, 2] * np.cos(hue), anchors[:, 2] * np.sin(hue)))
    # Anchors stand where their lightness is, so that lightness is even along each half.
    travelled = np.concatenate(([0], np.cumsum(np.abs(np.diff(lab[:, 0])))))
    at = np.linspace(0, travelled[-1], size)
    path = np.column_stack([np.interp(at, travelled, column) for column in lab.T])
    return ListedColormap(_srgb(path), name=f"mosaic_{name}")


def _srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    linear = np.clip((lab @ _CONES.T) ** 3 @ _RGB.T, 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(curved)


def banded(levels: tuple[float, ...], extend: Literal["both", "max", "neither"]) -> BoundaryNorm:
    """Colours by class: one for every interval of `levels`."""
    return BoundaryNorm(levels, 256, extend=extend)
