"""Writing a product's files and cubes: every part is checked, then written, then looked for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from zarr.codecs import BloscCodec, BloscShuffle

from mosaic_core.products.checks import Check
from mosaic_core.products.output import Array, Block, Cube, File, Output, ProductError
from mosaic_core.storage import ObjectStore
from mosaic_core.storage.groups import new_group


@dataclass(frozen=True)
class Asset:
    """One thing in the store: a file, or a Zarr store (whose key is a folder).

    Attributes:
        key: key in the store, prefix included.
        sha256: of a file's bytes; None for a Zarr store, whose digest is made from its objects.
        size: bytes of a file, or of all the objects of a Zarr store.
        chunks: chunk shape of each array of a Zarr store.
    """

    key: str
    media_type: str
    size: int
    sha256: str | None
    title: str
    variables: tuple[str, ...]
    lead_hours: tuple[float, ...]
    chunks: Mapping[str, tuple[int, ...]]


def write(
    output: Output,
    checks: Sequence[Check],
    store: ObjectStore,
    prefix: str,
    attributes: Mapping[str, Any],
) -> Asset:
    """Check and write one output below `prefix`; what an earlier run left there is replaced.

    Raises:
        ProductError: a check failed, or a part is missing, doubled or misshapen.
        StoreError: the store refuses.
    """
    key = f"{prefix}/{output.name}" if prefix else output.name
    if isinstance(output, File):
        return _write_file(output, checks, store, key)
    return _write_cube(output, checks, store, key, attributes)


def _write_file(file: File, checks: Sequence[Check], store: ObjectStore, key: str) -> Asset:
    if not file.content:
        raise ProductError(f"{file.name} is empty", "some bytes")
    variables: tuple[str, ...] = ()
    if file.shows is not None:
        _run(checks, file.shows, file.name)
        variables = tuple(str(name) for name in file.shows.data_vars)
    store.put(key, file.content)
    digest = hashlib.sha256(file.content).hexdigest()
    return Asset(
        key,
        file.media_type,
        len(file.content),
        digest,
        file.title,
        variables,
        file.lead_hours,
        {},
    )


def _write_cube(
    cube: Cube, checks: Sequence[Check], store: ObjectStore, key: str, attributes: Mapping[str, Any]
) -> Asset:
    store.delete_all(key)
    coordinates = cube.coordinates.assign_attrs({**attributes, **cube.attributes})
    with new_group(store.zarr(key), coordinates) as group:
        arrays = {name: _create(group, cube, name, array) for name, array in cube.arrays.items()}
        written: dict[str, dict[tuple[int, ...], int]] = {name: {} for name in cube.arrays}
        for block in cube.blocks():
            _run(checks, block.values, cube.name)
            _put(block, cube, arrays, written)
        _refuse_gaps(cube, written)
    store.flush(key)
    size = sum(info.size for info in store.list(key))
    return Asset(
        key,
        cube.media_type,
        size,
        None,
        cube.title,
        tuple(cube.arrays),
        cube.lead_hours,
        {name: array.chunks for name, array in cube.arrays.items()},
    )


def _create(group: Any, cube: Cube, name: str, array: Array) -> Any:
    auxiliary = [
        str(key)
        for key, coordinate in cube.coordinates.coords.items()
        if key not in cube.coordinates.dims and set(coordinate.dims) <= set(array.dims)
    ]
    attributes = dict(array.attributes)
    if auxiliary:
        attributes["coordinates"] = " ".join(sorted(auxiliary))
    codec = BloscCodec(cname="zstd", clevel=1, shuffle=BloscShuffle.bitshuffle)
    return group.create_array(
        name,
        shape=cube.shape(name),
        dtype=array.dtype,
        chunks=array.chunks,
        shards=array.shards,
        compressors=codec,
        fill_value=np.nan if np.dtype(array.dtype).kind == "f" else 0,
        dimension_names=array.dims,
        attributes=attributes,
    )


def _put(
    block: Block,
    cube: Cube,
    arrays: Mapping[str, Any],
    written: dict[str, dict[tuple[int, ...], int]],
) -> None:
    """Write one block; `written` keeps the first index and the size of every part."""
    for key, values in block.values.data_vars.items():
        name = str(key)
        array = cube.arrays.get(name)
        if array is None or tuple(values.dims) != array.dims:
            raise ProductError(
                f"{cube.name}: block with {name}{tuple(values.dims)}",
                ", ".join(f"{n}{a.dims}" for n, a in cube.arrays.items()),
            )
        start = tuple(block.offsets.get(dim, 0) for dim in array.dims)
        stop = tuple(i + n for i, n in zip(start, values.shape, strict=True))
        if any(i > n for i, n in zip(stop, cube.shape(name), strict=True)):
            raise ProductError(f"{cube.name}: {name} to {stop}", f"within {cube.shape(name)}")
        if start in written[name]:
            raise ProductError(f"{cube.name}: {name} at {start} made twice", "every part once")
        region = tuple(slice(i, j) for i, j in zip(start, stop, strict=True))
        arrays[name][region] = np.asarray(values.values, array.dtype)
        written[name][start] = values.size


def _refuse_gaps(cube: Cube, written: Mapping[str, Mapping[tuple[int, ...], int]]) -> None:
    for name, parts in written.items():
        made, whole = sum(parts.values()), math.prod(cube.shape(name))
        if made != whole:
            raise ProductError(
                f"{cube.name}: {made} values of {name} were made",
                f"{whole}",
                "the blocks of this product must cover every dimension once",
            )


def _run(checks: Sequence[Check], values: Any, name: str) -> None:
    failures = [text for check in checks for text in check(values)]
    if failures:
        raise ProductError(
            f"{name}: {'; '.join(failures)}",
            "values that pass the product's checks",
            "look at the members of the forecast; nothing of this product was published",
        )
