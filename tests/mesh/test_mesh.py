from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.mesh.healpix import HealpixMesh, unit_vectors
from mosaic_core.mesh.neighbours import (
    directions,
    grid_radians,
    grid_to_mesh,
    mesh_to_grid,
    nearest,
)

GRID = LatLonGrid.with_poles(240, 121)


def digest(table: np.ndarray) -> str:
    return hashlib.sha256(np.sort(table, axis=1).astype("<i8").tobytes()).hexdigest()


@pytest.mark.parametrize("k", [20, 24])
@pytest.mark.parametrize("way", ["to_hp", "to_ll"])
def test_neighbours_of_the_full_grid_are_the_published_ones(golden: Path, way: str, k: int) -> None:
    expected = json.loads((golden / "ops/full_grid_neighbors.json").read_text())[f"{way}_k{k}"]
    mesh = HealpixMesh(64)
    points = grid_radians(GRID)
    if way == "to_hp":
        table, rule = grid_to_mesh(GRID, mesh, k), nearest(mesh.radians, points, k)
    else:
        table, rule = mesh_to_grid(GRID, mesh, k), nearest(points, mesh.radians, k)
    assert digest(rule) == expected["sha256_rule_rows_sorted"]
    assert digest(table) == expected["sha256_int64_rows_sorted"]


def test_pixels_at_a_pole_take_its_copies_at_the_opposite_longitude() -> None:
    table = grid_to_mesh(GRID, HealpixMesh(64), 20)
    longitudes = np.sort(table[4095] // 121 * 1.5)
    assert longitudes[0] == 210.0
    assert longitudes[-1] == 238.5
    assert np.all(table[4095] % 121 == 120)


@pytest.mark.parametrize("nside", [2, 4, 8, 16, 32, 64])
def test_pixel_centres_are_the_published_ones(golden: Path, nside: int) -> None:
    expected = json.loads((golden / "ops/full_grid_neighbors.json").read_text())
    found = hashlib.sha256(HealpixMesh(nside).degrees.tobytes()).hexdigest()
    assert found == expected[f"healpix_nside{nside}_sha256"]


def test_radians_are_rounded_as_published(golden: Path) -> None:
    expected = json.loads((golden / "ops/full_grid_neighbors.json").read_text())
    found = hashlib.sha256(HealpixMesh(64).radians.tobytes()).hexdigest()
    assert found == expected["healpix_grid_nside64_float32_rad_sha256"]
    found = hashlib.sha256(grid_radians(GRID).tobytes()).hexdigest()
    assert found == expected["latlon_grid_float32_rad_sha256"]


@settings(max_examples=20, deadline=None)
@given(
    nlon=st.integers(3, 20),
    nlat=st.integers(3, 15),
    nside=st.sampled_from([1, 2, 4]),
    k=st.integers(1, 9),
)
def test_nearest_agrees_with_a_search_over_all_pairs(
    nlon: int, nlat: int, nside: int, k: int
) -> None:
    points, mesh = grid_radians(LatLonGrid.with_poles(nlon, nlat)), HealpixMesh(nside)
    found = nearest(mesh.radians, points, k)
    a, b = mesh.radians.astype(np.float64)[:, None], points.astype(np.float64)[None]
    haversine = (
        np.sin(0.5 * (a[..., 1] - b[..., 1])) ** 2
        + np.cos(a[..., 1]) * np.cos(b[..., 1]) * np.sin(0.5 * (a[..., 0] - b[..., 0])) ** 2
    )
    expected = np.argsort(haversine, axis=1, kind="stable")[:, :k]
    chosen = np.take_along_axis(haversine, found, axis=1)
    np.testing.assert_array_equal(chosen, np.take_along_axis(haversine, expected, axis=1))


@pytest.mark.parametrize("way", ["to_hp", "to_ll"])
def test_directions_are_chords_from_source_to_target(golden: Path, way: str) -> None:
    with np.load(golden / "ops/interpolation.npz") as arrays:
        neighbours, expected = arrays[f"{way}/neighbors"], arrays[f"{way}/rel_pos"]
    points = grid_radians(LatLonGrid.with_poles(24, 13))
    grid, mesh = unit_vectors(points[:, 0], points[:, 1]), HealpixMesh(8).xyz
    found = directions(*((mesh, grid) if way == "to_hp" else (grid, mesh)), neighbours)
    np.testing.assert_allclose(found, expected, atol=6e-6)


def test_children_are_consecutive() -> None:
    offsets = HealpixMesh(4).child_offsets(HealpixMesh(8)).reshape(-1, 4, 3)
    assert np.linalg.norm(offsets, axis=2).max() < 0.2
    np.testing.assert_allclose(offsets.mean(axis=1), 0, atol=0.02)


def test_rows_run_from_north_to_south() -> None:
    mesh = HealpixMesh(8)
    assert np.all(np.diff(mesh.degrees[mesh.rows, 1]) <= 1e-4)


@pytest.mark.parametrize("nside", [0, 3, 12])
def test_nside_must_be_a_power_of_two(nside: int) -> None:
    with pytest.raises(ConfigurationError, match="power of two"):
        HealpixMesh(nside)


def test_more_neighbours_than_points_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="fewer"):
        nearest(HealpixMesh(1).radians, HealpixMesh(1).radians, 13)
