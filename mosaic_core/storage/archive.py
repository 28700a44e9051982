"""Archives of others, which are only read: any store, and public buckets of Google Cloud."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mosaic_core.errors import MosaicError
from mosaic_core.storage.objects import open_store

if TYPE_CHECKING:
    import xarray as xr


def archive(url: str) -> Any:
    """A read-only Zarr store at a URL as `open_store` takes it, or `gs://`, read anonymously.

    Raises:
        ConfigurationError, StoreError: as `open_store`.
    """
    if url.startswith("gs://"):
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(url, storage_options={"token": "anon"}, read_only=True)
    return open_store(url, create=False).zarr("", read_only=True)


def open_archive(
    url: str, error: type[MosaicError], holding: str, *, decode_timedelta: bool
) -> xr.Dataset:
    """The data set in such a store, nothing of it read yet.

    Args:
        error: raised where there is no Zarr store that can be opened.
        holding: what it should hold, in words.

    Raises:
        ConfigurationError, StoreError: as `archive`.
    """
    import xarray as xr

    try:
        ds: xr.Dataset = xr.open_zarr(archive(url), chunks=None, decode_timedelta=decode_timedelta)
        return ds
    except MosaicError:
        raise
    except Exception as reason:  # zarr, xarray and the file systems raise what they like
        raise error(
            f"{url} cannot be opened ({type(reason).__name__}: {reason})",
            f"a Zarr store of {holding} in WeatherBench layout",
            "check the URL and the network",
        ) from reason
