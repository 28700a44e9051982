"""Spherical harmonics against identities, ducc0, windspharm, the IFS and spectral GRIB."""

from __future__ import annotations

from pathlib import Path

import ducc0
import eccodes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.spectral import (
    EARTH_RADIUS,
    SphericalHarmonics,
    gaussian_grid,
    legendre,
    legendre_slope,
    power,
)


def random_coefficients(truncation: int, seed: int, slope: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    size = truncation + 1
    values = rng.normal(size=(size, size)) + 1j * rng.normal(size=(size, size))
    values *= np.maximum(np.arange(size), 1.0) ** slope
    values[0] = values[0].real
    return np.triu(values)


def midpoint_grid(nlon: int, nlat: int) -> LatLonGrid:
    latitude = -90 + 180 / nlat * (np.arange(nlat) + 0.5)
    return LatLonGrid(tuple((np.arange(nlon) * 360 / nlon).tolist()), tuple(latitude.tolist()))


GRIDS = {
    "poles": LatLonGrid.with_poles(240, 121),
    "few points with poles": LatLonGrid.with_poles(36, 19),
    "midpoints": midpoint_grid(64, 32),
    "gaussian": gaussian_grid(128, 64),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_round_trip_is_exact_to_the_largest_truncation(grid: LatLonGrid) -> None:
    harmonics = SphericalHarmonics(grid)
    coefficients = random_coefficients(harmonics.truncation, 1)
    again = harmonics.analysis(harmonics.synthesis(coefficients))
    np.testing.assert_allclose(again, coefficients, atol=1e-11)


def test_the_model_grid_is_exact_to_wavenumber_119() -> None:
    assert SphericalHarmonics(LatLonGrid.with_poles(240, 121)).truncation == 119


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_vorticity_and_divergence_survive_their_winds(grid: LatLonGrid) -> None:
    harmonics = SphericalHarmonics(grid)
    zeta, delta = (random_coefficients(harmonics.truncation, s, -1.5) * 1e-5 for s in (2, 3))
    zeta[0, 0] = delta[0, 0] = 0
    again = harmonics.vorticity_divergence(*harmonics.winds(zeta, delta))
    np.testing.assert_allclose(again, [zeta, delta], atol=1e-13)


@given(
    half=st.integers(4, 24),
    extra=st.integers(0, 3),
    kind=st.sampled_from(["poles", "mid", "gauss"]),
)
@settings(max_examples=25, deadline=None)
def test_parseval_holds_on_any_supported_grid(half: int, extra: int, kind: str) -> None:
    nlon, nlat = 2 * half + extra, half + 1
    make = {"poles": LatLonGrid.with_poles, "mid": midpoint_grid, "gauss": gaussian_grid}
    harmonics = SphericalHarmonics(make[kind](nlon, nlat))
    coefficients = random_coefficients(harmonics.truncation, half)
    fine = SphericalHarmonics(gaussian_grid(2 * nlon, 2 * nlat), harmonics.truncation)
    _, weights = np.polynomial.legendre.leggauss(2 * nlat)
    mean_square = (weights @ (fine.synthesis(coefficients) ** 2).mean(-1)) / 2
    assert power(coefficients).sum() == pytest.approx(mean_square, rel=1e-11)
    found = harmonics.analysis(harmonics.synthesis(coefficients))
    assert power(found).sum() == pytest.approx(mean_square, rel=1e-10)


def test_kinetic_energy_sums_to_the_mean_of_half_the_squared_wind() -> None:
    harmonics = SphericalHarmonics(LatLonGrid.with_poles(96, 49), 40)
    zeta, delta = (random_coefficients(40, s, -1.0) * 1e-5 for s in (4, 5))
    zeta[0, 0] = delta[0, 0] = 0
    fine = SphericalHarmonics(gaussian_grid(192, 96), 40)
    u, v = fine.winds(zeta, delta)
    _, weights = np.polynomial.legendre.leggauss(96)
    mean = weights @ ((u**2 + v**2) / 2).mean(-1) / 2
    energy = harmonics.kinetic_energy(
        *harmonics.vorticity_divergence(*harmonics.winds(zeta, delta))
    )
    assert energy.sum() == pytest.approx(mean, rel=1e-9)
    assert energy[0] == 0


def test_solid_rotation_has_its_vorticity_in_one_coefficient() -> None:
    grid = LatLonGrid.with_poles(60, 31)
    u = np.repeat(20 * np.cos(np.deg2rad(grid.latitudes))[:, None], 60, axis=1)
    harmonics = SphericalHarmonics(grid)
    zeta, delta = harmonics.vorticity_divergence(u, np.zeros_like(u))
    expected = np.zeros_like(zeta)
    expected[0, 1] = 2 * 20 / EARTH_RADIUS / np.sqrt(3)
    np.testing.assert_allclose(zeta, expected, atol=1e-17)
    np.testing.assert_allclose(delta, 0, atol=1e-17)


@pytest.mark.parametrize(("order", "degree"), [(0, 1), (0, 60), (7, 7), (12, 40), (1, 119)])
def test_one_harmonic_has_all_its_power_at_its_wavenumber(order: int, degree: int) -> None:
    harmonics = SphericalHarmonics(LatLonGrid.with_poles(240, 121))
    coefficients = np.zeros((120, 120), complex)
    coefficients[order, degree] = 3.0 if order == 0 else 3.0 - 1.0j
    spectrum = power(harmonics.analysis(harmonics.synthesis(coefficients)))
    total = power(coefficients).sum()
    assert spectrum[degree] == pytest.approx(total, rel=1e-10)
    assert np.delete(spectrum, degree).sum() < 1e-10 * total
    energy = harmonics.kinetic_energy(
        *harmonics.vorticity_divergence(*harmonics.winds(coefficients, np.zeros_like(coefficients)))
    )
    assert np.delete(energy, degree).sum() < 1e-10 * energy[degree]


def test_starting_longitude_turns_the_phase_only() -> None:
    straight = LatLonGrid.with_poles(72, 37)
    shifted = LatLonGrid(tuple(lon + 2.5 for lon in straight.longitudes), straight.latitudes)
    coefficients = random_coefficients(30, 6)
    harmonics = SphericalHarmonics(shifted, 30)
    field = harmonics.synthesis(coefficients)
    np.testing.assert_allclose(harmonics.analysis(field), coefficients, atol=1e-12)
    assert np.abs(SphericalHarmonics(straight, 30).synthesis(coefficients) - field).max() > 0.1


def test_legendre_slope_is_the_derivative() -> None:
    latitude, step = np.deg2rad([-71.0, -10.0, 35.0]), 1e-5
    above, below = (legendre(13, 17, np.arcsin(np.sin(latitude) + s)) for s in (step, -step))
    slope = (above - below) / (2 * step) * np.cos(latitude) ** 2
    np.testing.assert_allclose(legendre_slope(13, 17, latitude), slope, atol=1e-6)


def test_analysis_agrees_with_ducc0() -> None:
    grid = LatLonGrid.with_poles(240, 121)
    harmonics = SphericalHarmonics(grid)
    field = harmonics.synthesis(random_coefficients(119, 7, -1.0))
    packed = ducc0.sht.analysis_2d(
        map=field[None, ::-1].copy(), spin=0, lmax=119, mmax=119, geometry="CC"
    )[0]
    rows, columns = np.triu_indices(120)
    # ducc0: harmonics of unit norm on the sphere, with the Condon-Shortley phase
    expected = packed / np.sqrt(4 * np.pi) * (-1.0) ** rows
    np.testing.assert_allclose(harmonics.analysis(field)[rows, columns], expected, atol=1e-11)


def test_synthesis_agrees_with_spectral_grib(shared_data: Path) -> None:
    folder = shared_data / "sphere" / "spectral_t63"
    with (folder / "spectral_simple_t63.grib2").open("rb") as file:
        message = eccodes.codes_grib_new_from_file(file)
        values = eccodes.codes_get_values(message)
        eccodes.codes_release(message)
    np.testing.assert_allclose(
        values, np.loadtxt(folder / "spectral_simple_t63.eccodes.ref.txt"), rtol=1e-9
    )
    coefficients = np.zeros((64, 64), complex)
    coefficients[np.triu_indices(64)] = values[::2] + 1j * values[1::2]
    coefficients[0] = coefficients[0].real
    oracle = np.loadtxt(folder / "spectral_render_t63.oracle.txt").reshape(37, 72)[::-1]
    # 72 x 37 points cannot hold wavenumber 63: synthesise on 144 x 73 and take every other point
    field = SphericalHarmonics(LatLonGrid.with_poles(144, 73), 63).synthesis(coefficients)
    np.testing.assert_allclose(field[::2, ::2], oracle, atol=1e-6)


def test_winds_agree_with_windspharm(shared_data: Path) -> None:
    folder = shared_data / "sphere" / "windspharm_regular"

    def reference(name: str) -> np.ndarray:
        return np.load(folder / f"{name}.ref.npy").squeeze()[::-1].astype(float)

    harmonics = SphericalHarmonics(LatLonGrid.with_poles(144, 73), radius=6.3712e6)
    zeta, delta = harmonics.vorticity_divergence(reference("uwnd"), reference("vwnd"))
    vorticity, divergence = harmonics.synthesis(zeta), harmonics.synthesis(delta)
    inner = slice(3, -3)
    np.testing.assert_allclose(vorticity[inner], reference("vrt")[inner], atol=2e-7)
    np.testing.assert_allclose(divergence[inner], reference("div")[inner], atol=2e-7)
    rotational, _ = harmonics.winds(zeta, np.zeros_like(zeta))
    np.testing.assert_allclose(rotational[inner], reference("upsi")[inner], atol=0.05)


def test_vorticity_agrees_with_the_ifs(shared_data: Path) -> None:
    folder = shared_data / "sphere"
    fields: dict[tuple[str, int], np.ndarray] = {}
    for name in ("ifs_uvtz_300_700_1deg_20170520_030h", "ifs_vo_300_700_1deg_20170520_030h"):
        with (folder / f"{name}.grib").open("rb") as file:
            while (message := eccodes.codes_grib_new_from_file(file)) is not None:
                key = eccodes.codes_get(message, "shortName"), eccodes.codes_get(message, "level")
                fields[key] = eccodes.codes_get_values(message).reshape(181, 360)[::-1]
                eccodes.codes_release(message)
    harmonics = SphericalHarmonics(LatLonGrid.with_poles(360, 181))
    for level in (300, 700):
        zeta, _ = harmonics.vorticity_divergence(fields["u", level], fields["v", level])
        ifs = harmonics.analysis(fields["vo", level])
        ours, theirs = np.where(np.arange(180) <= 100, (zeta, ifs), 0)
        overlap = power(ours).sum() ** 0.5 * power(theirs).sum() ** 0.5
        correlation = (np.abs(ours + theirs) ** 2 - np.abs(ours - theirs) ** 2) / 4
        correlation[1:] *= 2
        assert correlation.sum() / overlap > 0.995
        np.testing.assert_allclose(power(ours)[2:60], power(theirs)[2:60], rtol=0.15)


def test_unsupported_grid_is_refused_with_the_supported_ones() -> None:
    regional = LatLonGrid((0.0, 1.0, 2.0), (40.0, 41.0, 42.0))
    with pytest.raises(ConfigurationError, match=r"with both poles.*half a spacing.*Gaussian"):
        SphericalHarmonics(regional)


def test_truncation_beyond_the_grid_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"truncation 40.*1\.\.17"):
        SphericalHarmonics(LatLonGrid.with_poles(36, 19), 40)


def test_transposed_field_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="latitude, longitude"):
        SphericalHarmonics(LatLonGrid.with_poles(36, 19)).analysis(np.zeros((36, 19)))
