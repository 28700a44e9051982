"""A small world for the pipeline: sound analyses in a Zarr, a tiny model, a profile of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml
from zarr.errors import ZarrUserWarning

from mosaic_core.analysis.checks.bounds import bounds_of
from mosaic_core.analysis.static import shipped_static_fields
from mosaic_core.channels import VARIABLES, Channels
from mosaic_core.cycle import Cycle
from mosaic_core.grid import LatLonGrid

GRID = LatLonGrid.with_poles(24, 13)
CHANNELS = Channels.parse(
    [
        "2m_temperature",
        "10m_u_component_of_wind",
        "10m_v_component_of_wind",
        "temperature_500",
        "temperature_850",
    ]
)
FIRST = Cycle.parse("2026-03-28T12Z")
SECOND = FIRST.shift(6)
BEFORE = FIRST.shift(-6)
VARIANT = "tiny"
MEMBERS, STEPS = 2, 4

# Smooth made-up fields lie on the continents; they are in no balance and have no seasons.
UNBALANCED = ("tendency",)


def analyses(first: Cycle = BEFORE, count: int = 3) -> xr.Dataset:
    """Analyses every 6 hours in WeatherBench layout: winds slow over land, means as usual."""
    land = shipped_static_fields(GRID).land_sea_mask.astype(np.float64)
    lon, lat = np.deg2rad(GRID.longitudes)[None, :], np.deg2rad(GRID.latitudes)[:, None]
    times = [first.shift(6 * i) for i in range(count)]
    planes: dict[str, list[Any]] = {}
    for i, time in enumerate(times):
        phase = 0.4 * i + time.init_time.timetuple().tm_yday
        turning = 3 * lon + 2 * np.sin(2 * lat) + phase
        speed = 11.5 * (1 - 0.75 * land)
        for channel in CHANNELS:
            bounds = bounds_of(channel)
            if channel.variable.startswith("10m_"):
                wave = np.cos if "_u_" in channel.variable else np.sin
                plane = speed * 0.65 * wave(turning)
            else:
                wave = np.cos(2 * lat) * (1 + 0.1 * np.sin(2 * lon + phase)) + 0.1 * np.sin(lon)
                weights = np.broadcast_to(GRID.latitude_weights[:, None], wave.shape)
                wave = wave - np.average(wave, weights=weights)
                wave = wave / np.sqrt(np.average(wave**2, weights=weights))
                plane = bounds.mean + bounds.spread * wave
            planes.setdefault(channel.name, []).append(plane.astype(np.float32))
    stamps = [np.datetime64(t.init_time.replace(tzinfo=None), "ns") for t in times]
    variables: dict[str, Any] = {}
    levels = sorted({c.level for c in CHANNELS if c.level is not None})
    for name, own in CHANNELS.variables.items():
        attributes = {"units": VARIABLES[name].units}
        if own:
            stack = np.stack([np.stack(planes[f"{name}_{lv}"]) for lv in levels], axis=1)
            variables[name] = (("time", "level", "latitude", "longitude"), stack, attributes)
        else:
            stack = np.stack(planes[name])
            variables[name] = (("time", "latitude", "longitude"), stack, attributes)
    return xr.Dataset(
        variables,
        {
            "time": stamps,
            "level": levels,
            "latitude": list(GRID.latitudes),
            "longitude": list(GRID.longitudes),
        },
    )


def write_source(folder: Path, ds: xr.Dataset) -> None:
    """Write analyses where the profile of a world looks for them; one chunk a time."""
    shutil.rmtree(folder, ignore_errors=True)
    encoding = {
        str(name): {"chunks": (1, *array.shape[1:])} for name, array in ds.data_vars.items()
    }
    encoding["time"] = {"units": "hours since 2000-01-01", "dtype": np.dtype("int64")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata", category=ZarrUserWarning)
        ds.to_zarr(folder, mode="w", zarr_format=3, consolidated=True, encoding=encoding)


@dataclass
class World:
    """Files of one small site in a folder.

    Attributes:
        store, catalog: URLs; a folder and SQLite inside `folder` when not given.
        settings: over those of the profile.
    """

    folder: Path
    store: str = ""
    catalog: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = self.store or str(self.folder / "store")
        self.catalog = self.catalog or f"sqlite:///{self.folder}/catalog.sqlite"
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.source.exists():
            write_source(self.source, analyses())
        self.write()

    @property
    def source(self) -> Path:
        return self.folder / "analyses.zarr"

    @property
    def profile(self) -> str:
        return str(self.folder / "profile.yaml")

    def write(self, model: Mapping[str, Any] | None = None, **settings: Any) -> None:
        """Write the profile and model; `model` and `settings` change single keys, for good."""
        self.settings |= settings
        stage = {"dim": 16, "heads": 2, "kv_heads": 1, "local": 48, "block": 16, "selected": 1}
        stages = [
            {**stage, "nside": 4, "encoder_depth": 1, "decoder_depth": 1},
            {**stage, "nside": 2, "encoder_depth": 1},
        ]
        content = {
            "name": VARIANT,
            "step_hours": 6,
            "history": 2,
            "neighbours": 4,
            "noise_dim": 4,
            "grid": {"nlon": GRID.nlon, "nlat": GRID.nlat},
            "channels": list(CHANNELS.names),
            "static": ["geopotential_at_surface", "land_sea_mask"],
            "stages": stages,
            **(model or {}),
        }
        path = self.folder / "model.yaml"
        path.write_text(yaml.safe_dump(content))
        profile = {
            "name": "tiny",
            "model": str(path),
            "source": {"kind": "zarr", "url": str(self.source), "name": "made-up"},
            "store": self.store,
            "catalog": self.catalog,
            "members": MEMBERS,
            "steps": STEPS,
            "window": 2,
            "threads": 1,
            "device": "cpu",
            "products": ["statistics"],
            "leave_out_checks": list(UNBALANCED),
            **self.settings,
        }
        Path(self.profile).write_text(yaml.safe_dump(profile))


def copy_of(world: World, folder: Path) -> World:
    """A world in another folder with the same past: store, catalog and analyses."""
    shutil.copytree(world.folder, folder)
    return World(folder, settings=dict(world.settings))


def tree_digest(folder: Path) -> str:
    """sha256 over names and bytes of every file below a folder."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def plain(text: str) -> Any:
    return json.loads(text)
