"""A tiny atmosphere in a Zarr archive, a tiny model, and recipes that train it in seconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import yaml
import zarr
from numpy.typing import NDArray

from mosaic_core.channels import Channels
from mosaic_core.grid import LatLonGrid
from mosaic_core.training.recipe import Recipe

CHANNELS = ("2m_temperature", "temperature_850", "geopotential_500", "geopotential_850")
GRID = LatLonGrid.with_poles(16, 9)
START = datetime(2026, 3, 1, tzinfo=UTC)
Array = NDArray[np.float32]


def model_file(folder: Path, name: str = "tiny", **changes: Any) -> Path:
    """A model that runs a step in milliseconds."""
    stage = {"dim": 16, "heads": 2, "kv_heads": 1, "local": 12, "block": 12, "selected": 2,
             "mlp_ratio": 2}  # fmt: skip
    content = {
        "name": name, "step_hours": 6, "history": 2, "neighbours": 4, "noise_dim": 4,
        "predicts": "change", "grid": {"nlon": GRID.nlon, "nlat": GRID.nlat},
        "channels": list(CHANNELS),
        "static": ["land_sea_mask"],
        "stages": [
            {"nside": 4, "encoder_depth": 1, "decoder_depth": 1, **stage},
            {"nside": 2, "encoder_depth": 1, **stage},
        ],
        **changes,
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def waves(count: int) -> Array:
    """(time, longitude, latitude, channel): waves that travel, in the channels' units."""
    lon, lat = np.meshgrid(np.deg2rad(GRID.longitudes), np.deg2rad(GRID.latitudes), indexing="ij")
    times = np.arange(count)[:, None, None]
    scales = {"2m_temperature": (285, 10), "temperature_850": (275, 8),
              "geopotential_500": (54000, 1500), "geopotential_850": (14000, 700)}  # fmt: skip
    fields = []
    for i, name in enumerate(CHANNELS):
        mean, size = scales[name]
        wave = np.cos(lat) * np.sin((i + 1) * lon - (0.31 + 0.07 * i) * times)
        tide = 0.3 * np.sin(lat) * np.cos(0.11 * times)
        fields.append(mean + size * (wave + tide))
    return np.stack(fields, -1).astype(np.float32)


def write_archive(
    path: Path, values: Array, *, times: list[int] | None = None, descending: bool = False
) -> Path:
    """WeatherBench layout; `times` counts six-hour steps since START."""
    channels = Channels.parse(CHANNELS)
    latitudes = np.asarray(GRID.latitudes)[:: -1 if descending else 1]
    group = zarr.create_group(path, zarr_format=2)
    steps = list(range(len(values))) if times is None else times

    def put(name: str, data: Any, dimensions: list[str], **attributes: Any) -> None:
        chunks = (1, *data.shape[1:]) if dimensions[0] == "time" and data.ndim > 1 else data.shape
        array = group.create_array(name, shape=data.shape, dtype=data.dtype, chunks=chunks,
                                   fill_value=np.nan if data.dtype.kind == "f" else 0)  # fmt: skip
        array[:] = data
        array.attrs.update({"_ARRAY_DIMENSIONS": dimensions, **attributes})

    put("time", 6 * np.asarray(steps), ["time"], units=f"hours since {START:%Y-%m-%d}")
    put("latitude", latitudes, ["latitude"])
    put("longitude", np.asarray(GRID.longitudes), ["longitude"])
    put("level", np.asarray([500, 850]), ["level"])
    for name, levels in channels.variables.items():
        picked = [i for i, c in enumerate(channels) if c.variable == name]
        data = values[..., picked].transpose(0, 3, 2, 1)[..., :: -1 if descending else 1, :]
        if levels:
            full = np.full((len(values), 2, *data.shape[-2:]), np.nan, np.float32)
            for place, level in enumerate(levels):
                full[:, [500, 850].index(level)] = data[:, place]
            put(name, full, ["time", "level", "latitude", "longitude"])
        else:
            put(name, data[:, 0], ["time", "latitude", "longitude"])
    return path


def write_static(path: Path) -> Path:
    mask = np.cos(np.deg2rad(GRID.longitudes))[:, None] + np.zeros(GRID.nlat)
    np.savez(
        path, data=mask[..., None].astype(np.float32), latitude=np.asarray(GRID.latitudes),
        longitude=np.asarray(GRID.longitudes),
    )  # fmt: skip
    return path


def time_of(step: int) -> datetime:
    return START + step * timedelta(hours=6)


def recipe_content(**changes: Any) -> dict[str, Any]:
    """Sixty times for training, twenty for validation; some updates at one and two steps.

    Paths are relative: the fixture `site` is the current folder.
    """
    return {
        "name": "tiny",
        "model": "tiny.yaml",
        "data": {
            "inputs": "archive.zarr",
            "train": {"start": START.isoformat(), "end": time_of(60).isoformat()},
            "validation": {"start": time_of(62).isoformat(), "end": time_of(82).isoformat()},
            "statistics_samples": 20,
        },
        "seed": 3,
        "channel_weights": "uniform",
        "phases": [
            {"updates": 6, "batch": 2, "learning_rate": 3e-3, "warm_up": 2},
            {"updates": 4, "rollout": 2, "batch": 2, "learning_rate": 1e-3, "final": 0.5},
        ],
        "checkpoint_every": 3,
        "validate_every": 5,
        "validation_windows": 2,
        "validation_members": 3,
        **changes,
    }


def write_recipe(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_content(**changes)))
    return path


def recipe(folder: Path, **changes: Any) -> Recipe:
    return Recipe.load(str(write_recipe(folder, **changes)))
