"""`ensemble.zarr`: every member, step and channel, written window by window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BloscShuffle

from mosaic_core import dims
from mosaic_core.channels import VARIABLES
from mosaic_core.ensemble.layout import ForecastLayout
from mosaic_core.ensemble.written import (
    IDENTITY,
    NAME,
    PROGRESS,
    Written,
    seal,
    stored_identity,
    written,
)
from mosaic_core.errors import ForecastError, IntegrityError
from mosaic_core.storage import ObjectStore
from mosaic_core.storage.groups import quiet

_CHUNK_POINTS, _CHUNK_STEPS = 9680, 2
"""Size of a chunk of one member: a band of longitudes, and a few steps of it."""
_TIME = {"units": "hours since 1970-01-01T00:00:00", "calendar": "proleptic_gregorian"}
_SPAN = {"units": "hours", "dtype": "timedelta64[ns]"}


@dataclass(frozen=True)
class ForecastStore:
    """The ensemble of one forecast in an object store.

    A window of a batch counts as written when its marker is there, which is set after the bytes;
    when all are, the store is sealed: the forecast itself says so, and the markers go. Metadata is
    complete from the start, so that the first windows can be read while later ones are computed.
    """

    objects: ObjectStore
    prefix: str
    layout: ForecastLayout

    @classmethod
    def begin(
        cls,
        objects: ObjectStore,
        prefix: str,
        layout: ForecastLayout,
        *,
        discard: Callable[[str], None] | None = None,
    ) -> ForecastStore:
        """Create the arrays, or go on with those of an interrupted run of the same forecast.

        The batch size of an interrupted run is kept, since the bits of a member depend on it.

        Args:
            discard: told in words of the remains of another forecast, which are then removed; only
                for who holds the claim on a cycle whose revision is not published.

        Raises:
            ForecastError: what is there belongs to another forecast; the differences are named.
        """
        stored = stored_identity(objects, prefix)
        differences = [] if stored is None else layout.differences(stored)
        if differences and discard is not None:
            discard("; ".join(differences))
            stored = None
        if stored is None:
            objects.delete_all(f"{prefix}/{NAME}")
            objects.delete_all(f"{prefix}/{PROGRESS}")
            store = cls(objects, prefix, layout)
            store._create()
            return store
        if differences:
            raise ForecastError(
                f"{objects.url(prefix)} holds another forecast: " + "; ".join(differences),
                "an interrupted run of the same forecast, or nothing",
                "run the cycle, which discards it, or remove it",
            )
        return cls(objects, prefix, replace(layout, batch=int(stored["batch"])))

    def _create(self) -> None:
        layout = self.layout
        target = self.objects.zarr(f"{self.prefix}/{NAME}")
        group = zarr.create_group(target, zarr_format=3, overwrite=True)
        self._coordinates(group)
        members, steps = layout.spec.members, layout.spec.steps
        nlat, nlon = layout.grid.nlat, layout.grid.nlon
        together, columns = chunk_of(layout.window, nlat, nlon)
        whole = -(-nlon // columns) * columns
        for name, levels in layout.channels.variables.items():
            inner = (1,) if levels else ()
            axes = (dims.LEVEL,) if levels else ()
            attributes = {**variable_attributes(name), "coordinates": "init_time valid_time"}
            if name in layout.keepbits:
                attributes["keepbits"] = layout.keepbits[name]
            group.create_array(
                name,
                shape=(members, steps, *((len(levels),) if levels else ()), nlat, nlon),
                dtype="float32",
                chunks=(layout.batch, together, *inner, nlat, columns),
                shards=(layout.batch, layout.window, *inner, nlat, whole),
                compressors=BloscCodec(
                    cname="zstd", clevel=3, shuffle=BloscShuffle.bitshuffle, typesize=4
                ),
                fill_value=np.nan,
                dimension_names=(
                    dims.NUMBER, dims.LEAD_TIME, *axes, dims.LATITUDE, dims.LONGITUDE,
                ),
                attributes=attributes,
            )  # fmt: skip
        # The identity comes last: without it, what is there is an interrupted creation.
        group.attrs.update(
            {
                "Conventions": "CF-1.11",
                "title": f"Mosaic ensemble forecast {layout.variant} {layout.cycle}",
                IDENTITY: {**layout.identity(), "batch": layout.batch},
            }
        )
        with quiet():
            zarr.consolidate_metadata(target, zarr_format=3)

    def _coordinates(self, group: zarr.Group) -> None:
        layout = self.layout
        hours = np.arange(1, layout.spec.steps + 1, dtype=np.int64) * layout.step_hours
        start = int(layout.cycle.init_time.timestamp()) // 3600
        levels = sorted({c.level for c in layout.channels if c.level is not None})
        values: dict[str, tuple[tuple[str, ...], NDArray[Any], dict[str, Any]]] = {
            dims.NUMBER: ((dims.NUMBER,), np.arange(1, layout.spec.members + 1), {}),
            dims.LEAD_TIME: ((dims.LEAD_TIME,), hours, _SPAN),
            dims.INIT_TIME: ((), np.array(start), _TIME),
            dims.VALID_TIME: ((dims.LEAD_TIME,), start + hours, _TIME),
            dims.LATITUDE: ((dims.LATITUDE,), np.array(layout.grid.latitudes), {}),
            dims.LONGITUDE: ((dims.LONGITUDE,), np.array(layout.grid.longitudes), {}),
        }  # fmt: skip
        if levels:
            values[dims.LEVEL] = ((dims.LEVEL,), np.array(levels, np.int64), {})
        for name, (axes, data, attributes) in values.items():
            group.create_array(
                name,
                data=data,
                chunks=tuple(max(1, n) for n in data.shape) or "auto",
                dimension_names=axes,
                attributes={**dims.COORDINATE_ATTRIBUTES[name], **attributes},
                fill_value=None,
            )

    def written(self) -> Written:
        """What is there; all later reading of progress goes through it.

        Raises:
            ForecastError: it has been removed meanwhile.
        """
        found = written(self.objects, self.prefix)
        if found is None:
            raise ForecastError(
                f"the ensemble in {self.objects.url(self.prefix)} has gone",
                "the one that this run began",
                "run the cycle again; nobody may remove an unfinished forecast",
            )
        return found

    def write(self, window: int, batch: int, values: NDArray[np.float32], threads: int = 2) -> None:
        """Write one window of one batch: (channel, member, step, latitude, longitude).

        Raises:
            StoreError: the store refuses or is full; the window then counts as missing.
        """
        members, steps = self.layout.batches[batch], self.layout.windows[window]
        where = (slice(members.start - 1, members.stop - 1), slice(steps.start - 1, steps.stop - 1))
        target = self.objects.zarr(f"{self.prefix}/{NAME}")
        group = zarr.open_group(target, mode="r+", use_consolidated=False)
        arrays = {name: group[name] for name in self.layout.channels.variables}

        def write_channel(index: int) -> None:
            channel = self.layout.channels[index]
            place: tuple[Any, ...] = where
            if channel.level is not None:
                place = (*where, self._levels.index(channel.level))
            arrays[channel.variable][place] = values[index]

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(write_channel, range(len(self.layout.channels))))
        self.objects.flush(f"{self.prefix}/{NAME}")
        self.objects.put(f"{self.prefix}/{PROGRESS}/w{window:04d}b{batch:04d}", b"written\n")

    @property
    def _levels(self) -> list[int]:
        return sorted({c.level for c in self.layout.channels if c.level is not None})

    def read_steps(self, batch: int, steps: Sequence[int]) -> NDArray[np.float32]:
        """Written states of a batch: (member, step, longitude, latitude, channel)."""
        members = self.layout.batches[batch]
        group = zarr.open_group(
            self.objects.zarr(f"{self.prefix}/{NAME}", read_only=True), mode="r"
        )
        rows = slice(members.start - 1, members.stop - 1)
        columns = slice(steps[0] - 1, steps[-1])
        grid, channels = self.layout.grid, self.layout.channels
        out = np.empty((len(members), len(steps), *grid.shape, len(channels)), np.float32)
        for index, channel in enumerate(channels):
            place: tuple[Any, ...] = (rows, columns)
            if channel.level is not None:
                place = (*place, self._levels.index(channel.level))
            try:
                field = np.asarray(group[channel.variable][place])
            except (RuntimeError, ValueError) as error:
                raise IntegrityError(
                    f"{channel} of {self.objects.url(self.prefix)} is damaged: {error}",
                    "the bytes that were written",
                    "remove the unfinished forecast and run the cycle again",
                ) from error
            out[..., index] = field.transpose(0, 1, 3, 2)
        return out

    def seal(self) -> None:
        """See `mosaic_core.ensemble.written.seal`."""
        seal(self.objects, self.prefix)

    def open(self) -> xr.Dataset:
        """The ensemble, read lazily: number, lead_time, [level,] latitude, longitude."""
        return open_ensemble(self.objects, self.prefix)


def open_ensemble(objects: ObjectStore, prefix: str) -> xr.Dataset:
    """Open `ensemble.zarr` below `prefix` lazily."""
    return xr.open_zarr(
        objects.zarr(f"{prefix}/{NAME}", read_only=True), chunks=None, consolidated=True
    )


def chunk_of(window: int, nlat: int, nlon: int) -> tuple[int, int]:
    """(steps, longitudes) of a chunk over all latitudes; the steps divide the window.

    One step is read of many forecasts to verify them, and all steps of one place: about 20,000
    values of a member serve both. A grid that is smaller than a band has more steps in a chunk.
    """
    columns = min(nlon, max(1, _CHUNK_POINTS // nlat))
    fitting = max(1, _CHUNK_POINTS * _CHUNK_STEPS // (nlat * columns))
    return max(n for n in range(1, window + 1) if window % n == 0 and n <= fitting), columns


def variable_attributes(name: str) -> dict[str, Any]:
    """CF attributes of a variable."""
    variable = VARIABLES[name]
    attributes = {
        "units": variable.units,
        "standard_name": variable.standard_name,
        "long_name": name.replace("_", " "),
    }
    if name.startswith("2m_"):
        attributes["height"] = "2 m"
    if name.startswith("10m_"):
        attributes["height"] = "10 m"
    return attributes


def round_mantissa(values: NDArray[np.float32], keepbits: int) -> NDArray[np.float32]:
    """Round to `keepbits` explicit mantissa bits, ties to even (Klower et al. 2021); idempotent."""
    dropped = 23 - keepbits
    if dropped <= 0:
        return values
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    half = np.uint32((1 << (dropped - 1)) - 1)
    mask = np.uint32((0xFFFFFFFF >> dropped) << dropped)
    odd = (bits >> np.uint32(dropped)) & np.uint32(1)
    return ((bits + half + odd) & mask).view(np.float32)
