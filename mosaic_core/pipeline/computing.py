"""Where lead times are computed: in this process, each while the one before is kept, or on Dask."""

from __future__ import annotations

import os
import pickle
import socket
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from importlib import import_module
from typing import Any, Final

from mosaic_core.errors import ConfigurationError, MosaicError, StoreError
from mosaic_core.pipeline.forecasts import Published
from mosaic_core.pipeline.truth import StoredAnalyses
from mosaic_core.pipeline.verifier import Due, Verified, Verifier

Answer = tuple[Due, Verified | MosaicError]
Computing = Callable[[Verifier, Sequence[Due]], Iterator[Answer]]
"""Answers of lead times in their order; how many there are at once does not depend on how many are
asked for."""

LOCAL: Final = "local"
_ASK_SECONDS: Final = 30
_AT_ONCE: Final = 2
"""Lead times that are computed at the same time: one waits for the store while one is scored."""


def one_ahead(verifier: Verifier, dues: Sequence[Due]) -> Iterator[Answer]:
    """In this process; while one answer is taken the next two are computed, and no more."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting: deque[Future[Answer]] = deque()
        for due in dues:
            if len(waiting) > _AT_ONCE:
                yield waiting.popleft().result()
            waiting.append(pool.submit(answer_of, verifier, due))
        while waiting:
            yield waiting.popleft().result()


def on_dask(where: str) -> Computing:
    """On Dask: `local` are threads of this process, else the address of a scheduler.

    Two lead times a thread are in flight at once. Workers of a cluster have this package installed
    and open the site themselves, anew for each call: they read its store, which must be where the
    profile says, and only this process writes.

    Raises:
        ConfigurationError: Dask is not installed, or no scheduler or worker answers; a truth other
            than the analyses, on a cluster.
    """
    _installed("dask" if where == LOCAL else "distributed")
    return _on_threads if where == LOCAL else partial(_on_cluster, where)


def answer_of(verifier: Verifier, due: Due) -> Answer:
    """What was found of a lead time, or why nothing was."""
    try:
        return due, verifier.compute(due)
    except MosaicError as error:
        return due, error


def found(answer: Verified | MosaicError) -> Verified:
    """What was found; raises why nothing was."""
    if isinstance(answer, MosaicError):
        raise answer
    return answer


def _on_threads(verifier: Verifier, dues: Sequence[Due]) -> Iterator[Answer]:
    yield from _in_batches(partial(answer_of, verifier), dues, os.cpu_count() or 1, "threads")


def _on_cluster(address: str, verifier: Verifier, dues: Sequence[Due]) -> Iterator[Answer]:
    if not isinstance(verifier.truth, StoredAnalyses):
        raise ConfigurationError(
            f"truth {verifier.truth.name} on a cluster", "the analyses that are stored"
        )
    if not isinstance(verifier.forecasts, Published):
        raise ConfigurationError(
            f"forecasts of {verifier.forecasts.name} on a cluster", "those that the site published"
        )
    site = pickle.dumps((verifier.site.profile, verifier.settings)), uuid.uuid4().hex
    try:
        client = _installed("distributed").Client(
            address, timeout=_ASK_SECONDS, set_as_default=False
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"no Dask scheduler at {address}: {error}", "the address of one, or `local`"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=_ASK_SECONDS)
        except TimeoutError as error:
            raise ConfigurationError(
                f"the Dask scheduler at {address} has no worker", "one or more"
            ) from error
        threads = sum(client.nthreads().values())
        yield from _in_batches(partial(_on_worker, *site), dues, threads, client)


def _in_batches(
    task: Callable[[Due], Answer], dues: Sequence[Due], threads: int, scheduler: Any
) -> Iterator[Answer]:
    dask, size = _installed("dask"), 2 * threads
    for start in range(0, len(dues), size):
        asked = [partial(task, due) for due in dues[start : start + size]]
        yield from dask.compute(
            *(dask.delayed(one, pure=False)() for one in asked), scheduler=scheduler
        )


def _on_worker(packed: bytes, call: str, due: Due) -> Answer:
    return answer_of(_verifier_of(packed, call), due)


@lru_cache(maxsize=1)
def _verifier_of(packed: bytes, call: str) -> Verifier:
    """The verifier of one call of `on_dask`: what it keeps in memory does not outlive the call."""
    from mosaic_core.pipeline.site import open_site

    profile, settings = pickle.loads(packed)
    try:
        site = open_site(profile, create=False)
    except StoreError as error:
        raise StoreError(
            f"the Dask worker on {socket.gethostname()} cannot read the store: {error.found}",
            "the store of the profile, under the same path or URL on every worker",
            "mount it there, or verify without --dask ADDRESS",
        ) from error
    return Verifier(site, StoredAnalyses(site), settings)


def _installed(package: str) -> Any:
    """A module that only a backfill on Dask needs."""
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{package} is not installed", "it, to verify on Dask",
            "pip install 'mosaic-forecast[dask]'",
        ) from error  # fmt: skip
