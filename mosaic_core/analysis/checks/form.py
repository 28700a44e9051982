"""Checks on what is there: channels, times, grid, finite values, something new."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from mosaic_core import dims
from mosaic_core.analysis.checks.result import (
    CheckResult,
    Stack,
    Subject,
    has_channel,
    judge,
    stack_of,
)
from mosaic_core.analysis.fields import time_values
from mosaic_core.analysis.regrid import dataset_grid
from mosaic_core.channels import Channel, Channels
from mosaic_core.errors import AnalysisUnreadable
from mosaic_core.grid import LatLonGrid


@dataclass(frozen=True)
class ChannelsPresent:
    """Every channel once; levels not repeated."""

    name: str = "channels present"

    def run(self, subject: Subject) -> Iterable[CheckResult]:
        ds, total = subject.dataset, len(subject.channels)
        absent = [c for c in subject.channels if not has_channel(ds, c)]
        levels = ds[dims.LEVEL].values.tolist() if dims.LEVEL in ds.coords else []
        twice = sorted({level for level in levels if levels.count(level) > 1})
        failures = [f"{c} is missing" for c in absent] + [
            f"level {v} is there twice" for v in twice
        ]
        yield judge(
            self.name,
            failures,
            f"{total} of {total}",
            f"{total} channels, each once",
            channels=[c.name for c in absent],
        )


@dataclass(frozen=True)
class ValidTimes:
    """Exactly the valid times asked for, in order."""

    name: str = "valid times"

    def run(self, subject: Subject) -> Iterable[CheckResult]:
        found = subject.dataset[dims.VALID_TIME].values.astype("datetime64[ns]")
        wanted = time_values(subject.valid_times)
        expected = ", ".join(f"{t:%Y-%m-%dT%H:%MZ}" for t in subject.valid_times)
        text = ", ".join(map(str, found.astype("datetime64[m]")))
        failures = [] if np.array_equal(found, wanted) else [f"valid at {text}"]
        yield judge(self.name, failures, text, expected)


@dataclass(frozen=True)
class OnGrid:
    """Coordinates are those of the model grid."""

    name: str = "grid"

    def run(self, subject: Subject) -> Iterable[CheckResult]:
        try:
            grid = dataset_grid(subject.dataset)
            failures = [] if grid.is_close(subject.grid) else [f"on {grid}, from {_start(grid)}"]
        except AnalysisUnreadable as error:
            failures = [error.found]
        yield judge(
            self.name,
            failures,
            str(subject.grid),
            f"{subject.grid} points from {_start(subject.grid)}",
        )


@dataclass(frozen=True)
class Finite:
    """No NaN, no infinity."""

    name: str = "finite values"

    def run(self, subject: Subject) -> Iterable[CheckResult]:
        yield finite(self.name, subject.dataset, subject.channels)


@dataclass(frozen=True)
class NotStale:
    """No channel is the same, bit for bit, as at the time before.

    A field of one value everywhere is stale too.
    """

    name: str = "not stale"

    def run(self, subject: Subject) -> Iterable[CheckResult]:
        failures, named = [], []
        for channel in subject.channels:
            if not has_channel(subject.dataset, channel):
                continue
            values = stack_of(subject.dataset, channel)
            before = _last(subject.previous, channel)
            if before is not None:
                values = np.concatenate([before[None], values])
            same = any(np.array_equal(a, b) for a, b in itertools.pairwise(values))
            flat = any(np.ptp(plane) == 0 for plane in values)
            if same or flat:
                word = "is identical to the time before" if same else "is one value everywhere"
                failures.append(f"{channel} {word}")
                named.append(channel.name)
        yield judge(
            self.name, failures, "every channel moves", "fields that change", channels=named
        )


def finite(name: str, ds: xr.Dataset, channels: Channels) -> CheckResult:
    """Whether every channel of a dataset is finite, on whatever grid it is."""
    failures, named = [], []
    for channel in channels:
        if not has_channel(ds, channel):
            continue
        bad = int((~np.isfinite(stack_of(ds, channel))).sum())
        if bad:
            failures.append(f"{channel} is NaN or infinite at {bad} points")
            named.append(channel.name)
    return judge(name, failures, "no NaN, no infinity", "finite values", channels=named)


def _last(ds: xr.Dataset | None, channel: Channel) -> Stack | None:
    if ds is None or not has_channel(ds, channel):
        return None
    last: Stack = stack_of(ds, channel)[-1]
    return last


def _start(grid: LatLonGrid) -> str:
    lon, lat = grid.longitudes[0], grid.latitudes[0]
    return f"longitude {lon:g}, latitude {lat:g}"
