"""Years of the simulated atmosphere as a Zarr archive in the layout of WeatherBench.

    mosaic simulate --days 1600 --output archive

writes `archive/analyses.zarr` and `archive/truth.zarr`, which training reads like any archive of
real analyses, and the `zarr` source too.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, BloscShuffle

from mosaic_core.channels import VARIABLES, Channels
from mosaic_core.dims import COORDINATE_ATTRIBUTES, LATITUDE, LEVEL, LONGITUDE, VALID_TIME
from mosaic_core.errors import ConfigurationError, StoreError
from mosaic_core.simulation.source import SimulatedSource
from mosaic_core.storage.groups import quiet

CONTENTS: Final = ("analyses", "truth")
BLOCK: Final = 40
"""Times in a shard, and between two notes of how far the archive is."""

_PROGRESS: Final = "complete_times"


@dataclass(frozen=True)
class Period:
    """`count` times from `start`, `step_hours` apart."""

    start: datetime
    count: int
    step_hours: int = 6

    def __post_init__(self) -> None:
        if self.count < 1 or self.step_hours < 1:
            raise ConfigurationError(
                f"{self.count} times, {self.step_hours} h apart", "at least one of each"
            )

    def time(self, i: int) -> datetime:
        return self.start + timedelta(hours=self.step_hours * i)


def write_archive(
    source: SimulatedSource,
    folder: Path,
    channels: Channels,
    period: Period,
    on_progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Write analyses and truth of a period; an interrupted archive goes on where it stopped.

    Float32, (time, [level,] latitude, longitude), one chunk a time; blocks of 40 times are whole or
    missing (their times are NaN). How far it is stands in the attribute `complete_times`, written
    after the blocks. One block of both is in memory (0.8 GB for 82 channels at 240 x 121).

    Args:
        on_progress: told how many times are there, at the start and after each block.

    Raises:
        ConfigurationError: the folder holds an archive of another run or period, or something
            else; the source has no such channel or time.
        StoreError: the disk is full or refuses; what is there stays and is gone on with.
    """
    source.require(channels, period.start)
    try:
        groups = {content: _open(source, folder / f"{content}.zarr", channels, period, content)
                  for content in CONTENTS}  # fmt: skip
        done = min(int(str(group.attrs[_PROGRESS])) for group in groups.values())
        on_progress(done)
        while done < period.count:
            times = [period.time(i) for i in range(done, min(done + BLOCK, period.count))]
            for content, block in _block(source, channels, times).items():
                group = groups[content]
                for name, values in block.items():
                    group[name][done : done + len(times)] = values
                group.attrs[_PROGRESS] = done + len(times)
            done += len(times)
            on_progress(done)
    except OSError as error:
        raise StoreError(
            f"cannot write {folder}: {error.strerror or error}",
            f"room for {2 * _size(source, channels, period) / 1e9:.1f} GB at most",
            "make room and give the same command again: it goes on where it stopped",
        ) from error


def _block(
    source: SimulatedSource, channels: Channels, times: list[datetime]
) -> dict[str, dict[str, Any]]:
    """By content, each variable at `times`; analysis and truth of a time share its state."""
    states: dict[str, list[xr.Dataset]] = {content: [] for content in CONTENTS}
    for time in times:
        states["analyses"].append(source.fetch(channels, [time]))
        states["truth"].append(source.truth(channels, [time]))
    return {
        content: {
            name: np.concatenate([ds[name].values for ds in datasets])
            for name in channels.variables
        }
        for content, datasets in states.items()
    }


def _size(source: SimulatedSource, channels: Channels, period: Period) -> int:
    """Bytes of one content, not compressed."""
    return 4 * period.count * len(channels) * source.grid.nlat * source.grid.nlon


def _open(
    source: SimulatedSource, path: Path, channels: Channels, period: Period, content: str
) -> zarr.Group:
    """The archive at `path`, made if there is none: beside it, so that it is there whole."""
    attributes = {
        "Conventions": "CF-1.11",
        "content": content,
        "start": period.start.astimezone(UTC).isoformat(),
        "times": period.count,
        "step_hours": period.step_hours,
        "channels": list(channels.names),
        "grid": source.grid.digest,
        **source.provenance,
    }
    if not path.exists():
        beside = path.with_name(f".{path.name}.partial")
        if beside.exists():
            shutil.rmtree(beside)
        _create(source, beside, channels, period, attributes)
        beside.rename(path)
    try:
        group = zarr.open_group(path, mode="r+")
        found = dict(group.attrs)
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise ConfigurationError(
            f"{path} is no archive that can be read ({type(error).__name__}: {error})",
            "an archive of this command, or nothing",
            "choose another folder, or remove this one",
        ) from error
    wrong = [f"{k} {found.get(k)!r}, not {v!r}" for k, v in attributes.items() if found.get(k) != v]
    if wrong or _PROGRESS not in found:
        raise ConfigurationError(
            f"{path} is of another archive: {'; '.join(wrong)[:400]}",
            "an archive of the same run, grid, channels and period",
            "choose another folder, or remove this one",
        )
    return group


def _create(
    source: SimulatedSource,
    path: Path,
    channels: Channels,
    period: Period,
    attributes: dict[str, Any],
) -> None:
    group = zarr.create_group(path)
    levels = sorted({c.level for c in channels if c.level is not None})
    hours = period.step_hours * np.arange(period.count)
    coordinates: dict[str, Any] = {
        "time": hours.astype(np.int64),
        LATITUDE: np.asarray(source.grid.latitudes),
        LONGITUDE: np.asarray(source.grid.longitudes),
    }
    if levels:
        coordinates[LEVEL] = np.array(levels, np.int32)
    for name, values in coordinates.items():
        group.create_array(name, data=values, dimension_names=(name,), chunks=values.shape)
        group[name].attrs.update(COORDINATE_ATTRIBUTES[VALID_TIME if name == "time" else name])
    group["time"].attrs.update(
        units=f"hours since {period.start.astimezone(UTC):%Y-%m-%d %H:%M:%S}", calendar="standard"
    )
    plane = source.grid.nlat, source.grid.nlon
    for name, own in channels.variables.items():
        shape = (period.count, len(levels), *plane) if own else (period.count, *plane)
        dimensions = ("time", LEVEL, LATITUDE, LONGITUDE)
        array = group.create_array(
            name,
            shape=shape,
            chunks=(1, *shape[1:]),
            shards=(BLOCK, *shape[1:]),
            dtype="float32",
            fill_value=float("nan"),
            dimension_names=dimensions if own else (dimensions[0], *dimensions[2:]),
            compressors=BloscCodec(
                cname="zstd", clevel=3, shuffle=BloscShuffle.bitshuffle, typesize=4
            ),
        )
        variable = VARIABLES[name]
        array.attrs.update(units=variable.units, standard_name=variable.standard_name)
    group.attrs.update({**attributes, _PROGRESS: 0})
    with quiet():
        zarr.consolidate_metadata(group.store)
