"""Nearest neighbours between a longitude-latitude grid and a HEALPix mesh."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.mesh.healpix import Float32, HealpixMesh, to_radians

_SPARE = 24
"""More candidates than asked for: those that tie with the last neighbour."""

_TIES = Path(__file__).parent / "published_ties.npz"


def grid_radians(grid: LatLonGrid) -> Float32:
    """Longitude and latitude of every grid point, longitude outer: (nlon * nlat, 2)."""
    lon = to_radians(np.asarray(grid.longitudes, np.float32))
    lat = to_radians(np.asarray(grid.latitudes, np.float32))
    return np.stack([a.ravel() for a in np.meshgrid(lon, lat, indexing="ij")], axis=1)


def nearest(targets: Float32, sources: Float32, k: int) -> NDArray[np.int64]:
    """The k sources of smallest great-circle distance to each target, nearest first.

    Positions are (n, 2) longitude and latitude in radians, float32; distances are haversines in
    float64; ties go to the lowest index.

    Returns:
        (targets, k) indices.

    Raises:
        ConfigurationError: there are fewer than k sources.
    """
    if k > len(sources):
        raise ConfigurationError(f"{k} neighbours of {len(sources)} points", "fewer neighbours")
    targets64, sources64 = targets.astype(np.float64), sources.astype(np.float64)
    tree = cKDTree(_chords(sources64))
    candidates = min(k + _SPARE, len(sources))
    _, found = tree.query(_chords(targets64), k=candidates)
    found = np.sort(found.reshape(len(targets), candidates), axis=1)
    lon, lat = targets64[:, :1], targets64[:, 1:]
    other_lon, other_lat = sources64[found, 0], sources64[found, 1]
    haversine = (
        np.sin(0.5 * (lat - other_lat)) ** 2
        + np.cos(lat) * np.cos(other_lat) * np.sin(0.5 * (lon - other_lon)) ** 2
    )
    order = np.argsort(haversine, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(found, order, axis=1).astype(np.int64)


def _chords(radians: NDArray[np.float64]) -> NDArray[np.float64]:
    lon, lat = radians[:, 0], radians[:, 1]
    return np.stack((np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)), axis=1)


@cache
def grid_to_mesh(grid: LatLonGrid, mesh: HealpixMesh, k: int) -> NDArray[np.int64]:
    """Grid points nearest to each pixel: (mesh.size, k), see `nearest` and `_settle_ties`."""
    table = nearest(mesh.radians, grid_radians(grid), k)
    return _frozen(_settle_ties(table, grid, mesh, f"to_hp_k{k}"))


@cache
def mesh_to_grid(grid: LatLonGrid, mesh: HealpixMesh, k: int) -> NDArray[np.int64]:
    """Pixels nearest to each grid point: (nlon * nlat, k), see `nearest` and `_settle_ties`."""
    table = nearest(grid_radians(grid), mesh.radians, k)
    return _frozen(_settle_ties(table, grid, mesh, f"to_ll_k{k}"))


def _settle_ties(
    table: NDArray[np.int64], grid: LatLonGrid, mesh: HealpixMesh, name: str
) -> NDArray[np.int64]:
    """Use the published models' choice where their grid and mesh leave it open.

    Mirror-symmetric points are exactly equidistant; the tree search that made the published
    tables broke such ties by its own order. The rows where that differs from the lowest index are
    kept here, as facts about the trained weights.
    """
    if mesh.nside == 64 and grid.is_close(LatLonGrid.with_poles(240, 121), tolerance=0):
        with np.load(_TIES) as ties:
            if f"{name}/override_rows" in ties:
                table[ties[f"{name}/override_rows"]] = ties[f"{name}/override_neighbors"]
    return table


def _frozen(table: NDArray[np.int64]) -> NDArray[np.int64]:
    table.setflags(write=False)
    return table


def directions(targets: Float32, sources: Float32, neighbours: NDArray[np.int64]) -> Float32:
    """Unit chords from each neighbour to its target, (targets, k, 3) float32.

    `targets` and `sources` are unit vectors (n, 3). The chord is not projected on the tangent
    plane; a target that coincides with its source has direction 0.
    """
    chord = targets[:, None] - sources[neighbours]
    length = np.sqrt(np.sum(chord.astype(np.float64) ** 2, axis=-1, keepdims=True))
    return np.asarray(chord / np.maximum(length.astype(np.float32), np.float32(1e-12)))
