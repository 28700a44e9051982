"""A forecast at rest but for tropical cyclones put into it, for the tests of the tracks."""

from __future__ import annotations

import numpy as np
import xarray as xr

from mosaic_core.grid import LatLonGrid
from mosaic_core.products.cyclones import distance
from tests.products.ensembles import CYCLE, with_coordinates

RADIUS = 2.5  # degrees, of the strongest wind


def forecast_of(paths, hours, grid=None, *, warm=True, depth=3000.0):
    """A forecast with one cyclone for each path.

    Args:
        paths: for each member a list of paths; a path maps hours to (latitude, longitude) or None.
    """
    grid = grid or LatLonGrid.with_poles(240, 121)
    lat, lon = np.array(grid.latitudes)[:, None], np.array(grid.longitudes)[None, :]
    shape = (len(paths), len(hours), grid.nlat, grid.nlon)
    names = ["mean_sea_level_pressure", "10m_u_component_of_wind", "10m_v_component_of_wind"]
    flat = {name: np.zeros(shape, np.float32) for name in names}
    z = np.zeros((*shape[:2], 2, *shape[2:]), np.float32)  # 300, 500
    u, v = (np.zeros((*shape[:2], 1, *shape[2:]), np.float32) for _ in "uv")
    flat["mean_sea_level_pressure"] += 101000 + 300 * np.cos(np.deg2rad(4 * lat))
    z[:, :, 0] = 95000 - 3000 * np.sin(np.deg2rad(lat)) ** 2
    z[:, :, 1] = 57000 - 2000 * np.sin(np.deg2rad(lat)) ** 2
    for member, own in enumerate(paths):
        for path in own:
            for step, hour in enumerate(hours):
                centre = path(hour)
                if centre is None:
                    continue
                apart = distance(centre[0], centre[1], lat, lon)
                shape_of = np.exp(-((apart / RADIUS) ** 2) / 2)
                flat[names[0]][member, step] -= depth * shape_of
                speed = 30.0 * (apart / RADIUS) * np.exp((1 - (apart / RADIUS) ** 2) / 2)
                east = (lon - centre[1] + 180) % 360 - 180
                angle = np.arctan2(lat - centre[0], east * np.cos(np.deg2rad(centre[0])))
                turn = np.sign(centre[0])
                for targets, part in (
                    ((flat[names[1]], u), -turn * speed * np.sin(angle)),
                    ((flat[names[2]], v), turn * speed * np.cos(angle)),
                ):
                    targets[0][member, step] += 0.8 * part
                    targets[1][member, step, 0] += part
                z[member, step, 0] += (600 if warm else -600) * shape_of
    dims = ("number", "lead_time", "latitude", "longitude")
    leveled = ("number", "lead_time", "level", "latitude", "longitude")
    fields = xr.Dataset({name: (dims, values) for name, values in flat.items()})
    fields["geopotential"] = (leveled, np.concatenate((z, z[:, :, :1]), axis=2))
    for name, wind in (("u", u), ("v", v)):
        fields[f"{name}_component_of_wind"] = (leveled, np.repeat(wind, 3, axis=2))
    fields = fields.assign_coords(level=[300, 500, 850])
    return with_coordinates(fields, grid, len(paths), np.array(hours), CYCLE)


def straight(start, motion):
    """A path from `start` (latitude, longitude) by `motion` degrees an hour."""
    return lambda hour: (start[0] + motion[0] * hour, (start[1] + motion[1] * hour) % 360)
