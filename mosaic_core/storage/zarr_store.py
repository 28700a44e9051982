"""The Zarr store over obstore, whose errors are StoreError; apart because zarr is heavy."""

from __future__ import annotations

from typing import Any

from obstore.exceptions import BaseError
from zarr.storage import ObjectStore

from mosaic_core.storage.refusals import store_error


class TranslatingStore(ObjectStore):  # type: ignore[misc]
    """`zarr.storage.ObjectStore` that says what to do when the store refuses."""

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().get(key, *args, **kwargs)
        except BaseError as error:
            raise store_error(error, f"{_root(self.store)}/{key}", "read") from error

    async def set(self, key: str, value: Any) -> None:
        try:
            await super().set(key, value)
        except (BaseError, OSError) as error:
            raise store_error(error, f"{_root(self.store)}/{key}", "write") from error

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        try:
            await super().set_if_not_exists(key, value)
        except (BaseError, OSError) as error:
            raise store_error(error, f"{_root(self.store)}/{key}", "write") from error

    async def get_partial_values(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().get_partial_values(*args, **kwargs)
        except BaseError as error:
            raise store_error(error, _root(self.store), "read") from error


def _root(store: Any) -> str:
    bucket = store.config.get("bucket") if hasattr(store, "config") else None
    prefix = str(store.prefix or "") if hasattr(store, "prefix") else ""
    return f"s3://{bucket}/{prefix}" if bucket else prefix or str(store)
