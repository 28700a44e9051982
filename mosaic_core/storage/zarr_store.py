"""The Zarr store over obstore, whose errors are StoreError; apart because zarr is heavy."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any, Final

from zarr.core import sync
from zarr.storage import ObjectStore

from mosaic_core.errors import StoreError
from mosaic_core.storage.refusals import translated

_SETTLE_SECONDS: Final = 30


class TranslatingStore(ObjectStore):  # type: ignore[misc]
    """`zarr.storage.ObjectStore` that says what to do when the store refuses."""

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        with self._translated(key, "read"):
            return await super().get(key, *args, **kwargs)

    async def set(self, key: str, value: Any) -> None:
        with self._translated(key, "write"):
            await super().set(key, value)

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        with self._translated(key, "write"):
            await super().set_if_not_exists(key, value)

    async def get_partial_values(self, *args: Any, **kwargs: Any) -> Any:
        with self._translated("", "read"):
            return await super().get_partial_values(*args, **kwargs)

    @contextlib.contextmanager
    def _translated(self, key: str, action: str) -> Iterator[None]:
        url = f"{_root(self.store)}/{key}" if key else _root(self.store)
        if _end.begun:
            raise StoreError(f"cannot {action} {url}: the process ends", "a process that goes on")
        with translated(url, action):
            yield


class _End:
    """The end of the process."""

    begun = False

    def await_the_rest(self) -> None:
        """Let what is still read or written end before Python does, and begin nothing more.

        Of several chunks of which one is refused zarr raises that, and leaves the others under way.
        A thread of obstore that comes back to a Python that is ending aborts the process, and the
        exit code is lost; it may still be handing over what was awaited already.
        """
        self.begun = True
        loop, until = sync.loop[0], time.monotonic() + _SETTLE_SECONDS
        if loop is not None and loop.is_running():
            with contextlib.suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(_rest(), loop).result(_SETTLE_SECONDS)
        while _handing_over() and time.monotonic() < until:
            time.sleep(0.001)


async def _rest() -> None:
    """Await all tasks of the running loop but this."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


def _handing_over() -> bool:
    """Whether a thread is giving a loop a result."""
    giving = asyncio.BaseEventLoop.call_soon_threadsafe.__code__
    return any(
        frame.f_code is giving
        for innermost in sys._current_frames().values()
        for frame, _ in traceback.walk_stack(innermost)
    )


_end = _End()
atexit.register(_end.await_the_rest)  # before that of zarr, which closes the loop


def _root(store: Any) -> str:
    bucket = store.config.get("bucket") if hasattr(store, "config") else None
    prefix = str(store.prefix or "") if hasattr(store, "prefix") else ""
    return f"s3://{bucket}/{prefix}" if bucket else prefix or str(store)
