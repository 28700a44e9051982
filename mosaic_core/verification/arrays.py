"""What is kept of a verified forecast beside its scores: spectra and rank histograms.

One Zarr a forecast, `verification/v1/<variant>/<truth>/YYYY/MM/DD/HHZ.zarr`, one chunk a lead time;
lead times that are not verified yet are NaN.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import xarray as xr

from mosaic_core import dims
from mosaic_core.cycle import Cycle
from mosaic_core.storage import ObjectStore
from mosaic_core.storage.groups import new_group, quiet

ROOT: Final = "verification/v1"
_IDENTITY: Final = "forecast"
_ROOT_METADATA: Final = "zarr.json"


def folder(variant: str, truth: str) -> str:
    """Where the verification of a variant against a truth lies."""
    return f"{ROOT}/{variant}/{truth}"


def key_of(variant: str, truth: str, cycle: Cycle) -> str:
    return f"{folder(variant, truth)}/{cycle.init_time:%Y/%m/%d/%H}Z.zarr"


def write_lead(
    store: ObjectStore, key: str, values: xr.Dataset, lead_hours: list[int], forecast: str
) -> None:
    """Write the arrays of one lead time into those of the forecast, which are made if need be.

    Args:
        values: arrays of floating point without `lead_time`, with the scalar coordinate `lead_time`
            in hours; their attributes are text.
        lead_hours: every lead time of the forecast.
        forecast: which forecast it is; arrays of another one are replaced.

    Raises:
        StoreError: the store refuses.
    """
    hours = int(values[dims.LEAD_TIME])
    if not _begun(store, key, forecast, values, lead_hours):
        _begin(store, key, forecast, values, lead_hours)
    here = lead_hours.index(hours)
    one = values.drop_vars([*values.coords]).expand_dims({dims.LEAD_TIME: 1})
    with quiet():
        one.to_zarr(store.zarr(key), region={dims.LEAD_TIME: slice(here, here + 1)})
    store.flush(key)


def read(store: ObjectStore, key: str) -> xr.Dataset | None:
    """The arrays of a forecast; None where nothing has been verified."""
    if not store.exists(f"{key}/{_ROOT_METADATA}"):
        return None
    with xr.open_zarr(store.zarr(key, read_only=True), chunks=None) as lazy:
        ds: xr.Dataset = lazy.load()
    return ds


def _begun(
    store: ObjectStore, key: str, forecast: str, values: xr.Dataset, lead_hours: list[int]
) -> bool:
    """Whether arrays of this forecast and of these shapes are there; reads no chunk of them."""
    if not store.exists(f"{key}/{_ROOT_METADATA}"):
        return False
    found = xr.open_zarr(store.zarr(key, read_only=True), chunks=None)
    return (
        found.attrs.get(_IDENTITY) == forecast
        and found[dims.LEAD_TIME].values.tolist() == lead_hours
        and all(
            name in found and found[name].shape == (len(lead_hours), *array.shape)
            for name, array in values.data_vars.items()
        )
    )


def _begin(
    store: ObjectStore, key: str, forecast: str, values: xr.Dataset, lead_hours: list[int]
) -> None:
    store.delete_all(key)
    hours = (dims.LEAD_TIME, lead_hours, {"long_name": "hours since the initial time"})
    frame = (
        values.drop_vars([*values.data_vars, dims.LEAD_TIME])
        .assign_coords({dims.LEAD_TIME: hours})
        .assign_attrs({_IDENTITY: forecast, "Conventions": "CF-1.11"})
    )
    with new_group(store.zarr(key), frame) as group:
        for name, array in values.data_vars.items():
            group.create_array(
                str(name),
                shape=(len(lead_hours), *array.shape),
                chunks=(1, *array.shape),
                dtype=array.dtype,
                fill_value=np.nan,
                dimension_names=(dims.LEAD_TIME, *map(str, array.dims)),
                attributes=dict(array.attrs),
            )
