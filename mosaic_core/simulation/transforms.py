"""The spectral model's transforms: matrix products in float32, nothing else.

Coefficients are real arrays (m, part, field, l), part 0 real and 1 imaginary, m = 0..N and
l = 0..N + 1: winds and gradients of a field truncated at N reach N + 1. Fields on the Gaussian grid
are (field, latitude, longitude), south to north. Harmonics as in `mosaic_core.spectral`.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mosaic_core.errors import ConfigurationError
from mosaic_core.spectral import epsilon, gaussian_latitudes, legendre

Array: TypeAlias = NDArray[np.float32]

GRIDS: Final = {21: (64, 32), 31: (96, 48), 42: (128, 64), 63: (192, 96)}
"""(longitudes, latitudes) by truncation: quadratic products are free of aliasing."""


def table(values: NDArray[np.float64]) -> Array:
    """float32, with what would only make denormal products set to zero."""
    return np.ascontiguousarray(np.where(np.abs(values) < 1e-20, 0.0, values), np.float32)


def fourier_synthesis(truncation: int, longitude: NDArray[np.float64]) -> Array:
    """Matrix (m and part, longitude) from coefficients to values; longitude in radians."""
    m = np.arange(truncation + 1)[:, None]
    twice = np.where(m == 0, 1.0, 2.0)
    parts = np.stack([twice * np.cos(m * longitude), -twice * np.sin(m * longitude)], axis=1)
    return table(parts.reshape(-1, longitude.size))


def to_grid(modes: Array, fourier: Array) -> Array:
    """modes (m, part, field, latitude) -> (field, latitude, longitude)."""
    rows = modes.reshape(fourier.shape[0], -1)
    return np.asarray((rows.T @ fourier).reshape(*modes.shape[2:], -1))


class Transforms:
    """Synthesis, analysis and derivatives at one triangular truncation.

    Raises:
        ConfigurationError: a truncation that is not in `GRIDS`.
    """

    def __init__(self, truncation: int, radius: float) -> None:
        if truncation not in GRIDS:
            raise ConfigurationError(
                f"truncation T{truncation}", f"one of {', '.join(f'T{n}' for n in GRIDS)}"
            )
        self.truncation, self.radius = truncation, radius
        self.nlon, self.nlat = GRIDS[truncation]
        self.latitude, self.weights = gaussian_latitudes(self.nlat)
        self.longitude = 2 * np.pi * np.arange(self.nlon) / self.nlon
        orders, degrees = truncation + 1, truncation + 2
        values = legendre(orders, degrees, self.latitude)
        self._values = table(values)[:, None]
        self._weighted = table(np.swapaxes(values * (self.weights / 2), 1, 2))[:, None]
        self._fourier = fourier_synthesis(truncation, self.longitude)
        halves = np.where(np.arange(2 * orders) < 2, 1.0, 0.5) / self.nlon
        self._inverse = table(self._fourier * halves[:, None])
        eps, ell = epsilon(orders, degrees + 1), np.arange(degrees)
        self._order = np.arange(orders, dtype=np.float32)[:, None, None]
        self._from_above = table((ell + 2) * eps[:, 1:])[:, None, None]
        self._from_below = table((1 - ell) * eps[:, :-1])[:, None, None]
        self._test_below = table((ell + 1) * eps[:, :-1])[:, None, None]
        self._test_above = table(ell * eps[:, 1:])[:, None, None]
        kept = (ell >= np.arange(orders)[:, None]) & (ell <= truncation)
        self.kept = kept.astype(np.float32)[:, None, None]
        laplacian = ell * (ell + 1) / radius**2
        self.laplacian = -laplacian.astype(np.float32)
        self.inverse_laplacian = table(-np.where(ell > 0, 1 / np.maximum(laplacian, 1e-30), 0.0))

    def synthesis(self, coefficients: Array) -> Array:
        """(m, part, field, l) -> (field, latitude, longitude)."""
        return to_grid(np.matmul(coefficients, self._values), self._fourier)

    def analysis(self, fields: Array) -> Array:
        """(field, latitude, longitude) -> (m, part, field, l), l to N + 1."""
        rows = self._inverse @ fields.reshape(-1, self.nlon).T
        modes = rows.reshape(self.truncation + 1, 2, -1, self.nlat)
        return np.asarray(np.matmul(modes, self._weighted))

    def by_longitude(self, x: Array) -> Array:
        """Coefficients of ∂x/∂λ."""
        out = np.empty_like(x)
        np.multiply(x[:, 1], -self._order, out=out[:, 0])
        np.multiply(x[:, 0], self._order, out=out[:, 1])
        return out

    def by_latitude(self, x: Array) -> Array:
        """Coefficients of (1 - μ²) ∂x/∂μ."""
        out = np.zeros_like(x)
        out[..., :-1] = self._from_above[..., :-1] * x[..., 1:]
        out[..., 1:] += self._from_below[..., 1:] * x[..., :-1]
        return out

    def _against_slope(self, x: Array) -> Array:
        """Projection of a field with coefficients x on (1 - μ²) P', the adjoint recurrence."""
        out = np.zeros_like(x)
        out[..., 1:] = self._test_below[..., 1:] * x[..., :-1]
        out[..., :-1] -= self._test_above[..., :-1] * x[..., 1:]
        return out

    def winds(self, vorticity: Array, divergence: Array) -> tuple[Array, Array]:
        """Coefficients of (u, v) cos(latitude), m s-1."""
        psi = vorticity * (self.inverse_laplacian / np.float32(self.radius))
        chi = divergence * (self.inverse_laplacian / np.float32(self.radius))
        u = self.by_longitude(chi) - self.by_latitude(psi)
        return u, self.by_longitude(psi) + self.by_latitude(chi)

    def curl_and_divergence(self, a: Array, b: Array) -> tuple[Array, Array]:
        """Of the vector whose components times cos(latitude) are (1 - μ²) times (a, b)."""
        scale = self.kept / np.float32(self.radius)
        curl = (self.by_longitude(b) + self._against_slope(a)) * scale
        return curl, (self.by_longitude(a) - self._against_slope(b)) * scale

    def mean(self, field: NDArray[np.floating]) -> float:
        """Global mean of one field (latitude, longitude), in float64."""
        return float(self.weights @ field.mean(axis=1, dtype=np.float64) / 2)
