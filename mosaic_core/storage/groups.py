"""Zarr groups whose metadata are consolidated; apart because zarr is heavy."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import xarray as xr
import zarr


@contextmanager
def new_group(target: Any, frame: xr.Dataset) -> Iterator[zarr.Group]:
    """A Zarr 3 group with the coordinates and attributes of `frame`, for arrays to be made in.

    Its metadata are consolidated at the end: a reader then opens it by one object.

    Args:
        target: the store of the group, empty.

    Raises:
        StoreError: the store refuses.
    """
    with quiet():
        frame.to_zarr(target, mode="w", zarr_format=3, consolidated=False)
        yield zarr.open_group(target, mode="r+", use_consolidated=False)
        zarr.consolidate_metadata(target)


@contextmanager
def quiet() -> Iterator[None]:
    """Without zarr's warnings of what its specification does not have yet: consolidated metadata,
    some types. They belong to the process, so not in threads that run beside others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        warnings.filterwarnings("ignore", ".*does not have a Zarr V3 specification.*")
        yield
