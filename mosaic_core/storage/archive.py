"""Archives of others, which are only read: any store, and public buckets of Google Cloud."""

from __future__ import annotations

from typing import Any

from mosaic_core.storage.objects import open_store


def archive(url: str) -> Any:
    """A read-only Zarr store at a URL as `open_store` takes it, or `gs://`, read anonymously.

    Raises:
        ConfigurationError, StoreError: as `open_store`.
    """
    if url.startswith("gs://"):
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(url, storage_options={"token": "anon"}, read_only=True)
    return open_store(url, create=False).zarr("", read_only=True)
