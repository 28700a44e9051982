"""Years of the simulated atmosphere as a Zarr archive in the layout of WeatherBench.

    mosaic simulate --days 1600 --output archive

writes `archive/analyses.zarr` and `archive/truth.zarr`, which training reads like any archive of
real analyses, and the `zarr` source too.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from zarr.codecs import BloscCodec, BloscShuffle

from mosaic_core.channels import VARIABLES, Channels
from mosaic_core.dims import COORDINATE_ATTRIBUTES, LATITUDE, LEVEL, LONGITUDE, VALID_TIME
from mosaic_core.errors import ConfigurationError
from mosaic_core.simulation.source import SimulatedSource

CONTENTS: Final = ("analyses", "truth")
BLOCK: Final = 40
"""Times in a shard, and between two notes of how far the archive is."""

_PROGRESS: Final = "complete_times"
_log = logging.getLogger(__name__)


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
    missing (their times are NaN).

    Args:
        on_progress: told how many times are there, after each block.

    Raises:
        ConfigurationError: the folder holds an archive of another run or period.
        OSError: the disk is full; what is there stays and is gone on with.
    """
    groups = {content: _open(source, folder / f"{content}.zarr", channels, period, content)
              for content in CONTENTS}  # fmt: skip
    done = min(int(str(group.attrs[_PROGRESS])) for group in groups.values())
    on_progress(done)
    while done < period.count:
        times = [period.time(i) for i in range(done, min(done + BLOCK, period.count))]
        blocks: dict[str, list[Any]] = {content: [] for content in CONTENTS}
        for time in times:
            blocks["analyses"].append(source.fetch(channels, [time]))
            blocks["truth"].append(source.truth(channels, [time]))
        for content, group in groups.items():
            for name in channels.variables:
                values = np.concatenate([ds[name].values for ds in blocks[content]])
                group[name][done : done + len(times)] = values
            group.attrs[_PROGRESS] = done + len(times)
        done += len(times)
        on_progress(done)
    for group in groups.values():
        zarr.consolidate_metadata(group.store)


def _open(
    source: SimulatedSource, path: Path, channels: Channels, period: Period, content: str
) -> zarr.Group:
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
    if (path / "zarr.json").exists():
        group = zarr.open_group(path, mode="r+", use_consolidated=False)
        if _PROGRESS in group.attrs:
            found = {key: group.attrs.get(key) for key in attributes}
            wrong = [f"{k} {found[k]!r}" for k in attributes if found[k] != attributes[k]]
            if wrong:
                raise ConfigurationError(
                    f"{path} is of another archive: {'; '.join(wrong)[:400]}",
                    "an archive of the same run, grid, channels and period",
                    "choose another folder, or remove this one",
                )
            return group
    if path.exists():
        shutil.rmtree(path)
    return _create(source, path, channels, period, attributes)


def _create(
    source: SimulatedSource,
    path: Path,
    channels: Channels,
    period: Period,
    attributes: dict[str, Any],
) -> zarr.Group:
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
    group.attrs.update(attributes)
    group.attrs[_PROGRESS] = 0
    return group
