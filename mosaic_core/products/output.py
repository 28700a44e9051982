"""What a product yields: files and cubes. A product computes; writing is done elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from mosaic_core.errors import MosaicError


class ProductError(MosaicError):
    """A product cannot be made of this forecast, or what came out did not pass its checks."""


@dataclass(frozen=True)
class File:
    """One finished file.

    Attributes:
        name: key below the forecast's prefix, such as `maps/2m_temperature_mean_024h.png`.
        media_type: IANA media type.
        content: the bytes.
        shows: the numbers behind the file (of a map, the field drawn); the product's checks run
            on them before the file is written. None when there are none.
        lead_hours: the lead times (h) that it covers.
    """

    name: str
    media_type: str
    content: bytes
    shows: xr.Dataset | None = None
    lead_hours: tuple[float, ...] = ()
    title: str = ""


@dataclass(frozen=True)
class Array:
    """One array of a cube: its dimensions in order, the sizes of its chunks, its attributes."""

    dims: tuple[str, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...]
    attributes: Mapping[str, Any]
    dtype: str = "float32"


@dataclass(frozen=True)
class Block:
    """One part of a cube: where it belongs and its values; it holds whole shards.

    `offsets` gives the first index along each dimension that is not covered from its start.
    """

    offsets: Mapping[str, int]
    values: xr.Dataset


@dataclass(frozen=True)
class Cube:
    """A Zarr store, written block by block so that it never has to be in memory whole.

    Attributes:
        name: key below the forecast's prefix, such as `statistics.zarr`.
        coordinates: dataset with the coordinates alone; their sizes are the cube's.
        arrays: the data variables by name.
        blocks: called once; yields every part exactly once.
        lead_hours: the lead times (h) that it covers.
    """

    name: str
    coordinates: xr.Dataset
    arrays: Mapping[str, Array]
    blocks: Callable[[], Iterable[Block]]
    lead_hours: tuple[float, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    title: str = ""
    media_type = "application/vnd.zarr; version=3"

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.coordinates.sizes[dim] for dim in self.arrays[name].dims)

    @classmethod
    def of(
        cls, name: str, dataset: xr.Dataset, *, lead_hours: tuple[float, ...] = (), title: str = ""
    ) -> Cube:
        """A cube of a dataset that is in memory: one block, one shard an array.

        Dimensions without a coordinate get their index.
        """
        bare = {dim: np.arange(size) for dim, size in dataset.sizes.items() if dim not in dataset}
        dataset = dataset.assign_coords(bare)
        arrays = {}
        for key, variable in dataset.data_vars.items():
            dims = tuple(str(dim) for dim in variable.dims)
            shards = tuple(max(1, variable.sizes[dim]) for dim in dims)
            arrays[str(key)] = Array(
                dims, split(shards), shards, dict(variable.attrs), str(variable.dtype)
            )
        coordinates = dataset.drop_vars(list(dataset.data_vars))
        return cls(
            name,
            coordinates,
            arrays,
            lambda: [Block({}, dataset)],
            lead_hours,
            dict(dataset.attrs),
            title,
        )


Output = File | Cube


def split(
    shape: tuple[int, ...], target_bytes: int = 1 << 18, itemsize: int = 4
) -> tuple[int, ...]:
    """Chunk shape that divides `shape`, with at most about `target_bytes` a chunk.

    The longest axis is divided by its smallest prime factor until the chunk is small enough.
    """
    chunk = list(shape)
    while math.prod(chunk) * itemsize > target_bytes:
        axis = max(range(len(chunk)), key=lambda i: chunk[i])
        chunk[axis] //= _smallest_factor(chunk[axis])
    return tuple(chunk)


def _smallest_factor(n: int) -> int:
    return next((k for k in range(2, math.isqrt(n) + 1) if n % k == 0), n)
