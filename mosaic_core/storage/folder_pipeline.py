"""Sharded arrays in folders are read by zarrs (Rust), which fetches and decodes their chunks.

zarr hands each chunk to a thread and back, which takes longer than to decode it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import obstore.store
import zarr
from zarr.abc.store import Store
from zarr.codecs import ShardingCodec
from zarr.registry import get_pipeline_class, register_pipeline
from zarr.storage import LocalStore
from zarrs import ZarrsCodecPipeline
from zarrs.pipeline import UnsupportedMetadataError, get_codec_pipeline_impl

from mosaic_core.storage.refusals import store_error
from mosaic_core.storage.zarr_store import TranslatingStore

_log = logging.getLogger(__name__)
_OTHER: Final = get_pipeline_class()
Chunk = tuple[Any, Any, Any, Any, bool]
"""What zarr asks of a pipeline: the bytes of a chunk, its form, which part of it, where that goes,
and whether it is all of it."""


def read_folders_fast() -> None:
    """Make `FolderPipeline` the pipeline of zarr's configuration.

    What it does not read goes to the one that was there when this module was imported.
    """
    if get_pipeline_class() is not FolderPipeline:
        register_pipeline(FolderPipeline)
        zarr.config.set({"codec_pipeline.path": f"{__name__}.{FolderPipeline.__name__}"})


class FolderPipeline(ZarrsCodecPipeline):  # type: ignore[misc]
    """Reads the sharded arrays of a `TranslatingStore` that is a folder and read only.

    zarr itself reads what zarrs does not know: some codecs, steps other than 1, an output that is
    not contiguous. What the folder refuses is a StoreError, a damaged object a RuntimeError that
    names it.
    """

    @classmethod
    def from_array_metadata_and_store(cls, array_metadata: Any, store: Store) -> Any:
        folder = _folder_to_read(store)
        codecs = getattr(array_metadata, "codecs", ())
        if folder is not None and any(isinstance(codec, ShardingCodec) for codec in codecs):
            try:
                return cls._of(array_metadata, LocalStore(folder))
            except UnsupportedMetadataError as error:
                _log.info("an array of %s is read by zarr itself: %s", folder, error.__cause__)
        return _OTHER.from_array_metadata_and_store(array_metadata, store)

    @classmethod
    def from_codecs(cls, codecs: Iterable[Any]) -> Any:
        return _OTHER.from_codecs(codecs)

    @classmethod
    def _of(cls, metadata: Any, store: LocalStore) -> FolderPipeline:
        # zarrs has no use for attributes, and refuses those that hold NaN.
        impl = get_codec_pipeline_impl(metadata.update_attributes({}), store, strict=True)
        return cls(metadata, store, _Impl(impl), cls.from_codecs(metadata.codecs))

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(self._of(state["metadata"], state["store"]).__dict__)

    async def read(
        self, batch_info: Iterable[Chunk], out: Any, drop_axes: tuple[int, ...] = ()
    ) -> None:
        chunks, array = list(batch_info), out.as_ndarray_like()
        if not (array.flags.c_contiguous and array.dtype.isnative):
            await self.python_impl.read(chunks, out, drop_axes)
            return
        chunks, out = _by_slices(chunks, out)
        try:
            await super().read(chunks, out, drop_axes)
        except _UnreadError:
            for chunk in chunks:  # which of them
                await self._read_alone(chunk, out, drop_axes)

    async def _read_alone(self, chunk: Chunk, out: Any, drop_axes: tuple[int, ...]) -> None:
        try:
            await super().read([chunk], out, drop_axes)
        except _UnreadError as unread:
            error, url = unread.reason, f"{self.store.root}/{chunk[0].path}"
            if "(os error " in str(error):
                raise store_error(error, url, "read") from error
            raise RuntimeError(f"{url} is damaged: {error}") from error


class _UnreadError(Exception):
    """zarrs could not read."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(reason)
        self.reason = reason


class _Impl:
    """The reading of zarrs, whose errors are told from those of Python around it."""

    def __init__(self, impl: Any) -> None:
        self._impl = impl

    def retrieve_chunks_and_apply_index(self, *args: Any) -> None:
        try:
            self._impl.retrieve_chunks_and_apply_index(*args)
        except Exception as error:  # RuntimeError, OSError or IndexError, as the damage may be
            raise _UnreadError(error) from error


def _folder_to_read(store: Store) -> Path | None:
    if isinstance(store, TranslatingStore) and store.read_only:
        return store.store.prefix if isinstance(store.store, obstore.store.LocalStore) else None
    return None


def _by_slices(chunks: list[Chunk], out: Any) -> tuple[list[Chunk], Any]:
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
