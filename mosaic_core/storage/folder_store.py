"""Folders as Zarr stores to read; zarrs (Rust) fetches and decodes the chunks of their shards.

zarr 3.1 hands each chunk to a thread and back, which takes longer than to decode it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.codecs import ShardingCodec
from zarr.registry import register_pipeline
from zarr.storage import LocalStore
from zarrs import ZarrsCodecPipeline

from mosaic_core.storage.refusals import store_error, translated

_PROCESS: Final = os.getpid()
Chunks = list[tuple[Any, Any, Any, Any, bool]]
"""What zarr asks of a pipeline, by chunk: its bytes, its form, which part of it, where that goes,
and whether it is all of it."""


class FolderStore(LocalStore):  # type: ignore[misc]
    """A folder that is only read; what it refuses is a StoreError."""

    def __init__(self, root: Any, *, read_only: bool = True) -> None:
        super().__init__(root, read_only=read_only)

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        with translated(f"{self.root}/{key}", "read"):
            return await super().get(key, *args, **kwargs)

    async def get_partial_values(self, *args: Any, **kwargs: Any) -> Any:
        with translated(str(self.root), "read"):
            return await super().get_partial_values(*args, **kwargs)


class FolderPipeline(ZarrsCodecPipeline):  # type: ignore[misc]
    """Reads the sharded arrays of a `FolderStore`; all other arrays are left to zarr itself.

    So are all in a process that was forked from this one: the threads of zarrs are not in it, and
    reading would not end.
    """

    @classmethod
    def from_array_metadata_and_store(cls, array_metadata: Any, store: Store) -> Any:
        codecs = getattr(array_metadata, "codecs", ())
        sharded = any(isinstance(codec, ShardingCodec) for codec in codecs)
        if not (sharded and isinstance(store, FolderStore)):
            raise NotImplementedError  # zarr then makes its own
        return super().from_array_metadata_and_store(array_metadata, LocalStore(store.root))

    async def read(
        self, batch_info: Iterable[Any], out: Any, drop_axes: tuple[int, ...] = ()
    ) -> None:
        chunks = list(batch_info)
        if os.getpid() != _PROCESS:
            await self.python_impl.read(chunks, out, drop_axes)
            return
        try:
            await super().read(*_by_slices(chunks, out), drop_axes)
        except (OSError, RuntimeError) as error:
            below = os.path.commonpath([one.path for one, *_ in chunks])
            url = f"{self.store.root}/{below}"
            if "(os error " in str(error):
                raise store_error(error, url, "read") from error
            raise RuntimeError(f"{url} is damaged: {error}") from error


def _by_slices(chunks: Chunks, out: Any) -> tuple[Chunks, Any]:
    """The same without integers, which zarrs 0.2 takes of one chunk only: slices of length one,
    and a buffer that has these axes too."""
    wanted = chunks[0][2] if chunks else ()
    places = [i for i, part in enumerate(wanted) if not isinstance(part, slice)]
    if not places or not all(isinstance(wanted[i], int | np.integer) for i in places):
        return chunks, out
    wider = type(out).from_ndarray_like(np.expand_dims(out.as_ndarray_like(), places))
    again = []
    for one, form, part, where, whole in chunks:
        part, where = list(part), list(where)
        for i in places:
            part[i] = slice(int(part[i]), int(part[i]) + 1)
            where.insert(i, slice(0, 1))
        again.append((one, form, tuple(part), tuple(where), whole))
    return again, wider


register_pipeline(FolderPipeline)
zarr.config.set({"codec_pipeline.path": f"{__name__}.{FolderPipeline.__name__}"})
# Of codecs that it does not know; zarr reads them.
warnings.filterwarnings("ignore", "Array is unsupported by ZarrsCodecPipeline")
