from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mosaic_core.grid import LatLonGrid
from mosaic_core.spectral import SphericalHarmonics
from mosaic_core.verification import figures
from mosaic_core.verification.energy import Energy, bands, in_band

GRID = LatLonGrid.with_poles(36, 19)
HARMONICS = SphericalHarmonics(GRID)


def winds(seed: int, degree: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """A wind of one total wavenumber."""
    rng = np.random.default_rng(seed)
    size = HARMONICS.truncation + 1
    vorticity = np.zeros((size, size), complex)
    vorticity[: degree + 1, degree] = 1e-5 * (rng.normal(size=degree + 1))
    vorticity[0] = vorticity[0].real
    return HARMONICS.winds(vorticity, np.zeros_like(vorticity))


def test_energy_lies_at_the_wavenumber_of_the_wind() -> None:
    u, v = winds(0)
    energy = Energy.of((u[None], v[None]), (u, v), HARMONICS)
    total = energy.truth.sum()
    assert energy.truth[5] == pytest.approx(total, rel=1e-9)
    weights = np.broadcast_to(GRID.latitude_weights[:, None], u.shape)
    assert total == pytest.approx(np.average((u**2 + v**2) / 2, weights=weights), rel=0.05)
    np.testing.assert_allclose(energy.members, energy.truth, atol=1e-12)
    np.testing.assert_allclose(energy.mean, energy.truth, atol=1e-12)


def test_the_mean_of_opposite_members_has_no_energy_and_they_keep_theirs() -> None:
    u, v = winds(1)
    pair = np.stack([u, -u]), np.stack([v, -v])
    energy = Energy.of(pair, (u, v), HARMONICS)
    assert energy.mean.max() < 1e-12
    np.testing.assert_allclose(energy.members, energy.truth, rtol=1e-9, atol=1e-15)


def test_bands_cover_every_wavenumber_once_up_to_the_last() -> None:
    for last in (3, 10, 31, 35, 119):
        covered = [n for first, end in bands(last) for n in range(first, end + 1)]
        assert covered == list(range(1, last + 1))
    spectrum = np.arange(36.0)
    assert in_band(spectrum, (21, 31)) == sum(range(21, 32))


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_the_scorecard_is_purple_where_better_orange_where_worse_white_where_unknown() -> None:
    better, worse, unknown = (
        picture(figures.scorecard(np.array([[value]]), ["z500"], [24], "title"))
        for value in (0.9, -0.9, np.nan)
    )
    middle = tuple(size // 2 for size in better.shape[:2])
    up = (middle[0] - 6, middle[1] + 60)
    assert better[up][2] > better[up][0]
    assert worse[up][0] > worse[up][2]
    assert unknown[up].tolist() == [255, 255, 255]


def test_pictures_are_the_same_bytes_for_the_same_scores() -> None:
    u, v = winds(2)
    energy = Energy.of((u[None], v[None]), (u, v), HARMONICS)
    panel = figures.Curves("z500", "m", np.array([1.0, 2.0]), np.array([1.0, 1.5]))

    def draw() -> bytes:
        return figures.report(
            [panel], [24, 48], {("24 h", "500 hPa"): energy}, 17, "title", ["untrained"]
        )

    first = draw()
    assert draw() == first
    assert picture(first).std() > 5
