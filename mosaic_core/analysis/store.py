"""Checked analyses on the model grid, kept so that later cycles need not fetch them again.

One Zarr group for each source and valid time, `analyses/v1/<source>/YYYY/MM/DD/YYYYMMDDTHHZ.zarr`.
`checked.json` inside is written last and commits it: without it there is no analysis. It holds the
digest of the values, which is verified when they are read.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import xarray as xr

from mosaic_core import dims
from mosaic_core.analysis.checks.result import has_channel, stack_of
from mosaic_core.analysis.fields import time_values
from mosaic_core.analysis.regrid import dataset_grid
from mosaic_core.channels import Channels
from mosaic_core.errors import AnalysisRejected, ConfigurationError, IntegrityError
from mosaic_core.grid import LatLonGrid
from mosaic_core.storage import ObjectStore
from mosaic_core.storage.groups import quiet

COMMIT: Final = "checked.json"
ROOT: Final = "analyses/v1"


def analysis_key(source: str, valid_time: datetime) -> str:
    """`analyses/v1/<source>/YYYY/MM/DD/YYYYMMDDTHHZ.zarr`"""
    return f"{ROOT}/{source}/{valid_time.astimezone(UTC):%Y/%m/%d/%Y%m%dT%HZ}.zarr"


def digest_of(ds: xr.Dataset, channels: Channels) -> str:
    """sha256 over grid, time and the values of all channels, in order."""
    digest = hashlib.sha256(dataset_grid(ds).digest.encode())
    digest.update(ds[dims.VALID_TIME].values.astype("datetime64[s]").astype("<i8").tobytes())
    for channel in channels:
        digest.update(channel.name.encode())
        digest.update(stack_of(ds, channel).astype("<f4").tobytes())
    return digest.hexdigest()


def write_analysis(
    store: ObjectStore, ds: xr.Dataset, source: str, channels: Channels, checks: list[Any]
) -> str:
    """Store one checked analysis; returns its key.

    Writing the same again changes nothing.

    Args:
        ds: one valid time, on the model grid.
        checks: results of its checks, as plain values.

    Raises:
        AnalysisRejected: a check failed, or another analysis is stored for this time already.
        StoreError: the store refuses.
    """
    failed = [str(c.get("check")) for c in checks if c.get("status") == "failed"]
    if failed or ds.sizes[dims.VALID_TIME] != 1:
        raise AnalysisRejected(
            f"an analysis of {ds.sizes[dims.VALID_TIME]} times that fails {failed}",
            "one valid time that passes every check",
        )
    time = ds[dims.VALID_TIME].values[0].astype("datetime64[s]").astype(datetime)
    key = analysis_key(source, time.replace(tzinfo=UTC))
    digest = digest_of(ds, channels)
    if store.exists(f"{key}/{COMMIT}"):
        stored = json.loads(store.get(f"{key}/{COMMIT}"))["digest"]
        if stored != digest:
            raise AnalysisRejected(
                f"{store.url(key)} holds another analysis ({stored[:12]}, now {digest[:12]})",
                "stored analyses never change",
                "delete it on purpose, or give the source another `name`",
            )
        return key
    store.delete_all(key)
    with quiet():
        ds.drop_encoding().to_zarr(
            store.zarr(key), mode="w", zarr_format=3, consolidated=True, encoding=_encoding(ds)
        )
    store.flush(key)
    commit = {
        "schema_version": 1,
        "source": source,
        "valid_time": f"{time:%Y-%m-%dT%H:%M}Z",
        "grid": dataset_grid(ds).digest,
        "channels": list(channels.names),
        "digest": digest,
        "checks": checks,
    }
    store.put(f"{key}/{COMMIT}", json.dumps(commit, indent=1).encode())
    return key


def read_analysis(
    store: ObjectStore, source: str, valid_time: datetime, channels: Channels, grid: LatLonGrid
) -> xr.Dataset | None:
    """A stored analysis, whole and verified; None if there is none.

    Raises:
        ConfigurationError: it is of other channels or another grid than asked for.
        IntegrityError: its values are not those that were checked.
    """
    key = analysis_key(source, valid_time)
    if not store.exists(f"{key}/{COMMIT}"):
        return None
    commit = json.loads(store.get(f"{key}/{COMMIT}"))
    if commit["channels"] != list(channels.names) or commit["grid"] != grid.digest:
        raise ConfigurationError(
            f"{store.url(key)} is of {len(commit['channels'])} channels on another grid or in "
            "another order",
            f"the {len(channels)} channels of this model on {grid}",
            "give the source of this profile a `name` of its own",
        )
    try:
        with xr.open_zarr(store.zarr(key, read_only=True), chunks=None) as lazy:
            ds: xr.Dataset = lazy.load()
    except (RuntimeError, ValueError) as error:
        raise IntegrityError(
            f"{store.url(key)} is damaged: {error}",
            f"sha256 {commit['digest']}",
            "delete it: it is fetched again",
        ) from error
    absent = [c.name for c in channels if not has_channel(ds, c)]
    (wanted,) = time_values([valid_time])
    if (
        absent
        or ds[dims.VALID_TIME].values[0] != wanted
        or digest_of(ds, channels) != (commit["digest"])
    ):
        raise IntegrityError(
            f"{store.url(key)} does not hold the values that were checked",
            f"sha256 {commit['digest']}",
            "delete it: it is fetched again",
        )
    return ds


def _encoding(ds: xr.Dataset) -> dict[str, Any]:
    return {
        str(name): {"chunks": tuple(array.shape), "dtype": np.dtype("float32")}
        for name, array in ds.data_vars.items()
    } | {dims.VALID_TIME: {"units": "hours since 1970-01-01", "dtype": np.dtype("int64")}}
