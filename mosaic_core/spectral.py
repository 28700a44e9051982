"""Spherical harmonics on longitude-latitude grids: exact analysis, synthesis, winds and spectra.

A field is f(λ, μ) = Σ_m Σ_l f_lm P_lm(μ) e^{imλ}, μ = sin(latitude), over l = |m|..truncation,
with (1/2) ∫ P_lm² dμ = 1, no Condon-Shortley phase: the convention of spectral GRIB. So f_00 is
the global mean, and the mean square of f is the sum of `power` over l. Coefficients are complex
arrays (..., m, l) with m, l = 0..truncation, zero for l < m; the negative m are the conjugates.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid

Real: TypeAlias = NDArray[np.float64]
Coefficients: TypeAlias = NDArray[np.complex128]

EARTH_RADIUS: Final = 6_371_229.0
"""Metres; the sphere of the IFS."""

_POLE = np.pi / 2 - 1e-6
"""Winds have finite limits at the poles; they are taken this close to them (radians)."""


def epsilon(orders: int, degrees: int) -> Real:
    """ε_lm = sqrt((l² - m²) / (4 l² - 1)), (orders, degrees) for m and l from 0; zero for l <= m.

    ε enters μ P_l = ε_{l+1} P_{l+1} + ε_l P_{l-1}, and, with it, every derivative by latitude.
    """
    m, ell = np.arange(orders)[:, None], np.arange(degrees)[None, :]
    return np.asarray(np.sqrt(np.maximum(ell**2 - m**2, 0) / np.abs(4.0 * ell**2 - 1)))


def legendre(orders: int, degrees: int, latitude: ArrayLike) -> Real:
    """P_lm at `latitude` (radians), (orders, degrees, latitude), zero for l < m."""
    phi = np.atleast_1d(np.asarray(latitude, np.float64))
    mu, cos = np.sin(phi), np.cos(phi)
    eps = epsilon(orders, degrees)
    p = np.zeros((orders, degrees, phi.size))
    diagonal = np.ones_like(mu)
    for ell in range(degrees):
        if ell > 0:
            below = p[:, ell - 2] * eps[:, ell - 1, None] if ell > 1 else 0.0
            with np.errstate(divide="ignore", invalid="ignore"):
                rise = (mu * p[:, ell - 1] - below) / eps[:, ell, None]
            p[:, ell] = np.where(np.arange(orders)[:, None] < ell, rise, 0.0)
            diagonal = diagonal * cos * np.sqrt((2 * ell + 1) / (2 * ell))
        if ell < orders:
            p[ell, ell] = diagonal
    return p


def legendre_slope(orders: int, degrees: int, latitude: ArrayLike) -> Real:
    """(1 - μ²) dP_lm/dμ = (l + 1) ε_l P_{l-1} - l ε_{l+1} P_{l+1}, shaped as `legendre`."""
    p, eps = legendre(orders, degrees + 1, latitude), epsilon(orders, degrees + 1)
    ell = np.arange(degrees)[None, :]
    slope = -(ell * eps[:, 1:])[..., None] * p[:, 1:]
    slope[:, 1:] += ((ell + 1) * eps[:, :-1])[:, 1:, None] * p[:, :-2]
    return np.asarray(slope)


def gaussian_latitudes(nlat: int) -> tuple[Real, Real]:
    """Latitudes (radians, ascending) and weights, sum 2, exact for polynomials to 2 nlat - 1."""
    mu, weights = np.polynomial.legendre.leggauss(nlat)
    return np.arcsin(mu), weights


def gaussian_grid(nlon: int, nlat: int) -> LatLonGrid:
    """The Gaussian grid of a spectral model: T42 has 128 x 64."""
    latitude, _ = gaussian_latitudes(nlat)
    longitude = np.arange(nlon) * (360.0 / nlon)
    return LatLonGrid(tuple(longitude.tolist()), tuple(np.rad2deg(latitude).tolist()))


class SphericalHarmonics:
    """Transforms between a grid and coefficients; exact for fields within the truncation.

    Grids: equally spaced longitudes around the globe; latitudes equally spaced with both poles
    (240 x 121 is exact to l = 119), equally spaced half a spacing off the poles, or Gaussian.
    On the equally spaced ones each zonal wavenumber is a cosine or sine series in colatitude,
    which is interpolated, exactly, to Gaussian latitudes and integrated there: so the analysis is
    a Clenshaw-Curtis quadrature whose weights know the parity, one matrix an order m.

    Args:
        truncation: largest l; the largest one the grid determines when None.
        radius: of the sphere in m, for vorticity, divergence and winds.

    Raises:
        ConfigurationError: a grid of another kind, or a truncation that it cannot hold.
    """

    def __init__(
        self, grid: LatLonGrid, truncation: int | None = None, radius: float = EARTH_RADIUS
    ) -> None:
        self.grid, self.radius = grid, radius
        self._kind = _latitude_kind(grid)
        finest = min(grid.nlat - (2 if self._kind == "poles" else 1), (grid.nlon - 1) // 2)
        if truncation is not None and not 0 < truncation <= finest:
            raise ConfigurationError(
                f"truncation {truncation} on a grid of {grid}", f"1..{finest}", "use a finer grid"
            )
        self.truncation = finest if truncation is None else truncation

    @cached_property
    def wavenumbers(self) -> Real:
        """Total wavenumber l, (truncation + 1,)."""
        return np.arange(self.truncation + 1, dtype=np.float64)

    def analysis(self, field: ArrayLike) -> Coefficients:
        """Coefficients (..., m, l) of a scalar field (..., latitude, longitude)."""
        folded, lead = self._folded(field)
        found = self._zeros(folded)
        for block in self._scalar:
            block.put(block.of(folded), found)
        return found.reshape(*lead, *found.shape[1:])

    def synthesis(self, coefficients: Coefficients) -> Real:
        """The field (..., latitude, longitude) of coefficients (..., m, l)."""
        return self._grid_values(self._sum(coefficients, self._values))

    def vorticity_divergence(self, u: ArrayLike, v: ArrayLike) -> tuple[Coefficients, Coefficients]:
        """Coefficients (s-1) of relative vorticity and divergence of winds (m s-1).

        By integration by parts against the harmonics, so nothing is differenced on the grid:
        ζ_lm = (1/a) ∫ (i m v P_lm + u (1-μ²) P'_lm) / cos(lat) dμ/2, δ_lm likewise.
        """
        (eastward, lead), (northward, _) = self._folded(u), self._folded(v)
        zeta, delta = self._zeros(eastward), self._zeros(northward)
        for along, across in zip(*self._vector, strict=True):
            along.put(across.of(eastward) + _times_i(along.of(northward)), zeta)
            along.put(_times_i(along.of(eastward)) - across.of(northward), delta)
        shape = (*lead, *zeta.shape[1:])
        return zeta.reshape(shape), delta.reshape(shape)

    def winds(self, vorticity: Coefficients, divergence: Coefficients) -> tuple[Real, Real]:
        """(u, v) in m s-1 on the grid, with their finite limits at the poles."""
        along, across = self._slopes
        psi = vorticity * self._inverse_laplacian
        chi = divergence * self._inverse_laplacian
        im = 1j * self.wavenumbers[:, None]
        u = self._sum(im * chi, along) - self._sum(psi, across)
        v = self._sum(im * psi, along) + self._sum(chi, across)
        return self._grid_values(u) / self.radius, self._grid_values(v) / self.radius

    def kinetic_energy(self, vorticity: Coefficients, divergence: Coefficients) -> Real:
        """E_l = a² (|ζ_l|² + |δ_l|²) / (2 l (l + 1)) in m2 s-2, (..., l); E_0 = 0.

        Its sum over l is the global mean of (u² + v²) / 2. With harmonics of unit norm in μ, whose
        squares are twice these, the factor reads 1/4.
        """
        both = power(vorticity) + power(divergence)
        return np.asarray(-0.5 * self._inverse_laplacian * both)

    @cached_property
    def _inverse_laplacian(self) -> Real:
        ell = self.wavenumbers
        return np.asarray(
            np.where(ell > 0, -(self.radius**2) / np.maximum(ell * (ell + 1), 1), 0.0)
        )

    def _folded(self, field: ArrayLike) -> tuple[Real, tuple[int, ...]]:
        """Zonal waves of fields, (2, m, 2 field, latitude), and the fields' leading shape.

        The sums and the differences of the two hemispheres, on the southern rows and the equator;
        of each wave first the real parts of all fields, then the imaginary ones.
        """
        modes = self._fourier(field)
        lead, half = modes.shape[:-2], (self.grid.nlat + 1) // 2
        modes = modes.reshape(-1, *modes.shape[-2:])
        folded = np.empty((2, modes.shape[2], 2, len(modes), half))
        for i, waves in enumerate(modes):  # one field at a time stays in a processor's cache
            south, north = waves[:half].T, waves[::-1][:half].T
            for part, both in enumerate((south + north, south - north)):
                folded[part, :, 0, i], folded[part, :, 1, i] = both.real, both.imag
        return folded.reshape(2, modes.shape[2], 2 * len(modes), half), lead

    def _zeros(self, folded: Real) -> Coefficients:
        """Coefficients (field, m, l) to be filled."""
        size = self.truncation + 1
        return np.zeros((folded.shape[2] // 2, size, size), np.complex128)

    def _fourier(self, field: ArrayLike) -> Coefficients:
        values = np.asarray(field, np.float64)
        if values.shape[-2:] != (self.grid.nlat, self.grid.nlon):
            raise ConfigurationError(
                f"a field of shape {values.shape}",
                f"(..., {self.grid.nlat}, {self.grid.nlon}): latitude, longitude",
            )
        modes = scipy.fft.rfft(values, axis=-1, norm="forward")[..., : self.truncation + 1]
        return np.asarray(modes if self.grid.longitudes[0] == 0 else modes * np.conj(self._phase))

    @cached_property
    def _phase(self) -> Coefficients:
        start = np.deg2rad(self.grid.longitudes[0])
        return np.asarray(np.exp(1j * self.wavenumbers * start))

    def _grid_values(self, modes: Coefficients) -> Real:
        return np.asarray(
            scipy.fft.irfft(modes * (self._phase * self.grid.nlon), n=self.grid.nlon, axis=-1)
        )

    def _sum(self, coefficients: Coefficients, table: Real) -> Coefficients:
        """coefficients (..., m, l), table (m, l, latitude) -> (..., latitude, m)."""
        lead, size = coefficients.shape[:-2], self.truncation + 1
        flat = np.moveaxis(coefficients.reshape(-1, size, size), 1, 0)
        out = np.matmul(flat.real, table) + 1j * np.matmul(flat.imag, table)
        return np.asarray(np.moveaxis(out, 0, 2).reshape(*lead, self.grid.nlat, size))

    @cached_property
    def _latitude(self) -> Real:
        return np.clip(np.deg2rad(self.grid.latitudes), -_POLE, _POLE)

    @cached_property
    def _values(self) -> Real:
        size = self.truncation + 1
        return legendre(size, size, np.deg2rad(self.grid.latitudes))

    @cached_property
    def _slopes(self) -> tuple[Real, Real]:
        """P / cos and (1 - μ²) P' / cos, (m, l, latitude)."""
        size, cos = self.truncation + 1, np.cos(self._latitude)
        along = legendre(size, size, self._latitude) / cos
        return along, legendre_slope(size, size, self._latitude) / cos

    @cached_property
    def _scalar(self) -> list[_Block]:
        size = self.truncation + 1
        nodes, weights = gaussian_latitudes(self.grid.nlat)
        weighted = legendre(size, size, nodes) * (weights / 2)
        return _blocks(self._quadrature(weighted, odd_orders_sine=True))

    @cached_property
    def _vector(self) -> tuple[list[_Block], list[_Block]]:
        """Of m P / (a cos) and of (1 - μ²) P' / (a cos)."""
        size = self.truncation + 1
        nodes, weights = gaussian_latitudes(self.grid.nlat)
        scale = weights / (2 * self.radius * np.cos(nodes))
        along = legendre(size, size, nodes) * scale * self.wavenumbers[:, None, None]
        across = legendre_slope(size, size, nodes) * scale
        return (
            _blocks(self._quadrature(along, odd_orders_sine=False)),
            _blocks(self._quadrature(across, odd_orders_sine=False), odd=True),
        )

    def _quadrature(self, weighted: Real, odd_orders_sine: bool) -> Real:
        """Weights at the grid's latitudes, (m, latitude, l), of weights at Gaussian ones."""
        if self._kind != "gaussian":
            by_parity = [
                weighted[parity::2] @ self._interpolation(sine=(parity == 1) == odd_orders_sine)
                for parity in (0, 1)
            ]
            weighted = np.empty_like(weighted)
            weighted[0::2], weighted[1::2] = by_parity
        return np.ascontiguousarray(np.swapaxes(weighted, 1, 2))

    def _interpolation(self, sine: bool) -> Real:
        """Matrix (Gaussian latitude, latitude) of the cosine or sine series in colatitude."""
        here = np.pi / 2 - np.deg2rad(self.grid.latitudes)
        there = np.pi / 2 - gaussian_latitudes(self.grid.nlat)[0]
        n = self.grid.nlat
        if not sine:
            k = np.arange(n)
            return np.asarray(np.cos(np.outer(there, k)) @ np.linalg.inv(np.cos(np.outer(here, k))))
        matrix = np.zeros((n, n))
        inner = slice(1, -1) if self._kind == "poles" else slice(None)
        k = np.arange(1, len(here[inner]) + 1)
        matrix[:, inner] = np.sin(np.outer(there, k)) @ np.linalg.inv(
            np.sin(np.outer(here[inner], k))
        )
        return matrix


_TOGETHER: Final = 8
"""Orders of a block: the fewer, the fewer products with the zeros at l < m."""


class _Block(NamedTuple):
    """The quadrature of some orders and degrees whose harmonics have one parity in latitude.

    Attributes:
        orders, degrees: every second m and l.
        part: of the folded waves: 0 where the weights are even about the equator, 1 where odd.
        weights: (m, latitude, l), the southern rows and the equator.
    """

    orders: slice
    degrees: slice
    part: int
    weights: Real

    def of(self, folded: Real) -> Real:
        """(m, 2 field, l)"""
        return np.asarray(folded[self.part, self.orders] @ self.weights)

    def put(self, values: Real, coefficients: Coefficients) -> None:
        """Values (m, 2 field, l) in their places of (field, m, l)."""
        place = coefficients[:, self.orders, self.degrees]
        place.real = values[:, : len(place)].swapaxes(0, 1)
        place.imag = values[:, len(place) :].swapaxes(0, 1)


def _blocks(weights: Real, odd: bool = False) -> list[_Block]:
    """Of weights (m, latitude, l), zero for l < m, that are even about the equator where l - m is;
    with `odd` where it is not."""
    size, nlat = weights.shape[:2]
    half = (nlat + 1) // 2
    made = []
    for first in (start + p for start in range(0, size, 2 * _TOGETHER) for p in (0, 1)):
        orders = slice(first, min(first + 2 * _TOGETHER - 1, size), 2)
        for parity in (0, 1):
            degrees = slice(first + parity, size, 2)
            own = weights[orders, :, degrees]
            part = parity ^ odd
            south, north = own[:, :half], own[:, ::-1][:, :half]
            folded = (south - north if part else south + north) / 2
            if nlat % 2:
                folded[:, -1] /= 2  # the waves' sum has the equator twice
            if folded.size:
                made.append(_Block(orders, degrees, part, np.ascontiguousarray(folded)))
    return made


def _times_i(values: Real) -> Real:
    """i times values (m, 2 field, l)."""
    fields = values.shape[1] // 2
    return np.concatenate((-values[:, fields:], values[:, :fields]), axis=1)


def power(coefficients: Coefficients) -> Real:
    """Σ_m |f_lm|² over all m from -l to l, (..., l); its sum over l is the mean square of f."""
    squares = np.abs(coefficients) ** 2
    return np.asarray(squares[..., 0, :] + 2 * squares[..., 1:, :].sum(axis=-2))


def _latitude_kind(grid: LatLonGrid) -> str:
    longitude, latitude = np.asarray(grid.longitudes), np.asarray(grid.latitudes)
    spacing = 180.0 / grid.nlat
    candidates = {
        "poles": np.linspace(-90.0, 90.0, grid.nlat),
        "midpoints": -90.0 + spacing * (np.arange(grid.nlat) + 0.5),
        "gaussian": np.rad2deg(gaussian_latitudes(grid.nlat)[0]),
    }
    around = np.allclose(np.diff(longitude), 360.0 / grid.nlon, rtol=0, atol=1e-3)
    for kind, expected in candidates.items():
        if around and np.allclose(latitude, expected, rtol=0, atol=2e-3):
            return kind
    raise ConfigurationError(
        f"a grid of {grid} from {longitude[0]:g} to {longitude[-1]:g} degrees east and "
        f"{latitude[0]:g} to {latitude[-1]:g} degrees north "
        "has no exact spherical-harmonic analysis",
        "equally spaced longitudes around the globe, and latitudes equally spaced with both poles, "
        "equally spaced half a spacing off the poles, or Gaussian",
        "interpolate the field to such a grid first",
    )
