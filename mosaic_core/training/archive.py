"""Windows of consecutive states from a Zarr archive in WeatherBench layout, read ahead."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from mosaic_core import dims
from mosaic_core.channels import Channels
from mosaic_core.errors import AnalysisMissing, AnalysisUnreadable, ConfigurationError, MosaicError
from mosaic_core.grid import LatLonGrid
from mosaic_core.storage import open_store
from mosaic_core.training.recipe import DataConfig, Period

_log = logging.getLogger(__name__)
_DIMENSIONS: Final = {
    "time": ("time", "valid_time"),
    dims.LEVEL: ("level", "pressure_level", "plev"),
    dims.LATITUDE: ("latitude", "lat"),
    dims.LONGITUDE: ("longitude", "lon"),
}


class Archive:
    """States of a Zarr archive on the model's grid; only the times asked for are read.

    Raises:
        ConfigurationError: another grid, or a channel that the archive does not hold.
        AnalysisUnreadable: not a Zarr archive with CF times.
    """

    def __init__(self, url: str, channels: Channels, grid: LatLonGrid) -> None:
        self.url, self.channels, self.grid = url, channels, grid
        self._group = self._open()
        self._axes = {name: self._axis(name) for name in (dims.LATITUDE, dims.LONGITUDE)}
        self.times = self._times()
        self._position = {int(t): i for i, t in enumerate(self.times.astype("int64"))}
        if len(self._position) != len(self.times):
            raise AnalysisUnreadable(f"{url} has a time twice", "each time once")
        self._require_grid()
        self._levels = self._level_index()

    def has(self, time: datetime) -> bool:
        """Whether the time is on the axis; its fields may still be missing."""
        return _key(time) in self._position

    def state(self, time: datetime) -> NDArray[np.float32]:
        """(longitude, latitude, channel), float32, longitude and latitude ascending.

        Raises:
            AnalysisMissing: no such time, or one that was never written.
            AnalysisUnreadable: a chunk is damaged, or a value is not finite; it is named.
        """
        position = self._position.get(_key(time))
        if position is None:
            raise self._missing(time, "it is not on the axis")
        out = np.empty((self.grid.nlon, self.grid.nlat, len(self.channels)), np.float32)
        index = {channel: i for i, channel in enumerate(self.channels)}
        for name, levels in self.channels.variables.items():
            values = self._read(name, position, time)
            for channel, i in index.items():
                if channel.variable == name:
                    plane = values if not levels else values[self._levels[channel.level]]
                    out[..., i] = plane
        self._require_finite(out, time)
        return out

    def _read(self, name: str, position: int, time: datetime) -> NDArray[np.float32]:
        """([level,] longitude, latitude) in ascending order."""
        array = self._array(name)
        names = _names(array)
        try:
            values = np.asarray(array[position], np.float32)
        except Exception as error:  # codecs and stores raise what they like
            raise AnalysisUnreadable(
                f"{name} at {time:%Y-%m-%dT%HZ} in {self.url}: {type(error).__name__}: {error}",
                "chunks that can be read",
                "write or copy this time again",
            ) from error
        if names[-2] in _DIMENSIONS[dims.LATITUDE]:
            values = np.swapaxes(values, -1, -2)
        if self._axes[dims.LATITUDE][0] > self._axes[dims.LATITUDE][-1]:
            values = values[..., ::-1]
        return values

    def _require_finite(self, state: NDArray[np.float32], time: datetime) -> None:
        finite = np.isfinite(state).all(axis=(0, 1))
        if finite.all():
            return
        if np.isnan(state).all(axis=(0, 1)).any():
            raise self._missing(time, "its fields were never written")
        bad = [str(c) for c, good in zip(self.channels, finite, strict=True) if not good]
        raise AnalysisUnreadable(
            f"{', '.join(bad[:4])} of {time:%Y-%m-%dT%HZ} in {self.url} is not finite "
            f"({len(bad)} channels)",
            "finite values",
            "mend the archive, or set `missing: skip` in the recipe",
        )

    def _missing(self, time: datetime, why: str) -> AnalysisMissing:
        return AnalysisMissing(
            f"{self.url} has no {time:%Y-%m-%dT%HZ}: {why}",
            "every time of a window",
            "complete the archive, or set `missing: skip` in the recipe",
        )

    def _open(self) -> zarr.Group:
        try:
            if self.url.startswith("gs://"):
                from zarr.storage import FsspecStore

                store: Any = FsspecStore.from_url(
                    self.url, storage_options={"token": "anon"}, read_only=True
                )
            else:
                store = open_store(self.url, create=False).zarr("", read_only=True)
            return zarr.open_group(store, mode="r")
        except MosaicError:
            raise
        except Exception as error:
            raise AnalysisUnreadable(
                f"{self.url} cannot be opened ({type(error).__name__}: {error})",
                "a Zarr archive in WeatherBench layout",
                "check the URL; `mosaic simulate` makes one",
            ) from error

    def _array(self, name: str) -> Any:
        if name not in self._group:
            raise ConfigurationError(
                f"{self.url} has no {name}",
                f"the variables {', '.join(self.channels.variables)}",
                "choose another archive or other channels",
            )
        return self._group[name]

    def _axis(self, dimension: str) -> NDArray[np.float64]:
        for name in _DIMENSIONS[dimension]:
            if name in self._group:
                return np.asarray(self._group[name][:], np.float64)
        raise AnalysisUnreadable(
            f"{self.url} has no {dimension}", f"one of {', '.join(_DIMENSIONS[dimension])}"
        )

    def _times(self) -> NDArray[np.datetime64]:
        from xarray.coding.times import decode_cf_datetime

        for name in _DIMENSIONS["time"]:
            if name in self._group:
                array = self._group[name]
                units = str(array.attrs.get("units", ""))
                try:
                    decoded = decode_cf_datetime(array[:], units, array.attrs.get("calendar"))
                    return np.asarray(decoded).astype("datetime64[h]")
                except (ValueError, TypeError) as error:
                    raise AnalysisUnreadable(
                        f"the times of {self.url}: {error}",
                        "CF units, as in hours since 1900-01-01",
                    ) from error
        raise AnalysisUnreadable(f"{self.url} has no time axis", "an array `time`")

    def _require_grid(self) -> None:
        latitude = np.sort(self._axes[dims.LATITUDE])
        fits = np.array_equal(latitude.shape, (self.grid.nlat,)) and np.allclose(
            latitude, self.grid.latitudes, atol=1e-3
        )
        longitude = self._axes[dims.LONGITUDE]
        fits = fits and longitude.shape == (self.grid.nlon,)
        if not fits or not np.allclose(longitude, self.grid.longitudes, atol=1e-3):
            raise ConfigurationError(
                f"{self.url} is on a grid of {longitude.size} x {latitude.size} points",
                f"the model's {self.grid}",
                "regrid the archive once; training reads it as it is",
            )

    def _level_index(self) -> dict[int | None, int]:
        wanted = {c.level for c in self.channels if c.level is not None}
        if not wanted:
            return {}
        stored = np.round(self._axis(dims.LEVEL)).astype(int).tolist()
        absent = sorted(wanted - set(stored))
        if absent:
            raise ConfigurationError(
                f"{self.url} has no levels {', '.join(map(str, absent))} hPa",
                f"those of the model among {', '.join(map(str, stored))}",
            )
        return {level: stored.index(level) for level in wanted}


def _names(array: Any) -> tuple[str, ...]:
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    if not names:
        raise AnalysisUnreadable(f"{array.path} has no dimension names", "time, level, ...")
    return tuple(names)


def _key(time: datetime) -> int:
    return int(np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "h").astype("int64"))


@dataclass(frozen=True)
class Window:
    """States around one initial time.

    Attributes:
        history: (state, longitude, latitude, channel), physical units, oldest first.
        targets: (step, longitude, latitude, channel).
    """

    time: datetime
    history: Tensor
    targets: Tensor


class Windows:
    """Windows of one period, in an order that depends on the seed alone.

    Position n of the endless stream is the same window in every run, on any number of processes.
    Each epoch is a permutation (Philox keyed by seed and epoch) of the initial times.

    Raises:
        AnalysisMissing: `missing: stop`, and a time of the period is absent.
        ConfigurationError: no window fits in the period.
    """

    def __init__(
        self, config: DataConfig, period: Period, inputs: Archive, targets: Archive,
        step_hours: int, history: int, steps: int, seed: int,
    ) -> None:  # fmt: skip
        self.config, self.inputs, self.targets = config, inputs, targets
        self.step, self.history, self.seed = timedelta(hours=step_hours), history, seed
        self.skipped: dict[datetime, str] = {}
        first, end = period.bounds
        self.times: list[datetime] = []
        time = first + (history - 1) * self.step
        while time + steps * self.step < end:
            reason = self._absent(time, steps)
            if reason is None:
                self.times.append(time)
            elif config.missing == "stop":
                raise AnalysisMissing(
                    reason, "every time of the period",
                    "complete the archive, shorten the period, or set `missing: skip`",
                )  # fmt: skip
            else:
                self._skip(time, reason)
            time += timedelta(hours=config.every_hours)
        if not self.times:
            raise ConfigurationError(
                f"no window of {history} states and {steps} steps in {period.start} to "
                f"{period.end} of {inputs.url}",
                "at least one",
                "lengthen the period",
            )

    def time(self, n: int) -> datetime:
        """Initial time of window n of the stream."""
        epoch, place = divmod(n, len(self.times))
        order = np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(
            len(self.times)
        )
        return self.times[int(order[place])]

    def read(self, time: datetime, steps: int) -> Window:
        """One window; raises as `Archive.state`."""
        past = [self.inputs.state(t) for t in self._past(time)]
        future = [self.targets.state(time + i * self.step) for i in range(1, steps + 1)]
        return Window(time, torch.from_numpy(np.stack(past)), torch.from_numpy(np.stack(future)))

    def draw(self, n: int, steps: int) -> Window:
        """Window n; with `missing: skip`, one that cannot be read is named and replaced."""
        for attempt in range(len(self.times)):
            time = self.time(n + attempt * (7919 * len(self.times) + 1))
            try:
                if time not in self.skipped:
                    return self.read(time, steps)
            except (AnalysisMissing, AnalysisUnreadable) as error:
                if self.config.missing == "stop":
                    raise
                self._skip(time, str(error))
        raise AnalysisMissing(
            f"no window of {self.inputs.url} can be read", "one at least", "mend the archive"
        )

    def _skip(self, time: datetime, reason: str) -> None:
        if time not in self.skipped:
            self.skipped[time] = reason
            _log.warning("window %s is left out: %s", f"{time:%Y-%m-%dT%HZ}", reason)

    def _past(self, time: datetime) -> list[datetime]:
        return [time - i * self.step for i in reversed(range(self.history))]

    def _absent(self, time: datetime, steps: int) -> str | None:
        past = [(self.inputs, t) for t in self._past(time)]
        future = [(self.targets, time + i * self.step) for i in range(1, steps + 1)]
        for archive, t in past + future:
            if not archive.has(t):
                return f"{archive.url} has no {t:%Y-%m-%dT%HZ}"
        return None


def read_ahead(
    windows: Windows, requests: Iterable[tuple[int, int]], readers: int
) -> Iterator[Window]:
    """Yield windows for (n, steps) in order, some being read while the last one is used."""
    with ThreadPoolExecutor(max(1, readers)) as pool:
        ahead = 2 * max(1, readers)
        waiting: list[Future[Window]] = []
        for n, steps in requests:
            waiting.append(pool.submit(windows.draw, n, steps))
            if len(waiting) > ahead:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
