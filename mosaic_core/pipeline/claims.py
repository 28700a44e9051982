"""Claims of a run on its cycle and on parts of its members.

A claim is a row with an expiry. Its holder prolongs it every 30 s, so that the claim of a process
that died on another machine ends within 120 s of its last sign; that of one which died on this
machine (seen by its process number) is taken over at once.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import psutil

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.catalog.claims import subject
from mosaic_core.catalog.models import Claim
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CycleBusy, MosaicError
from mosaic_core.pipeline.patience import patiently

CLAIM_SECONDS = 120.0
HEARTBEAT_SECONDS = CLAIM_SECONDS / 4
LOCK = -1
"""A `part` for what is held only for a moment, beside the claims on cycle and parts."""

Key = tuple[int, Cycle, str, int]
_held: ContextVar[dict[Key, Callable[[], None]] | None] = ContextVar("held", default=None)
_log = logging.getLogger(__name__)


@contextmanager
def claimed(
    catalog: Catalog, cycle: Cycle, variant: str, part: int = 0, *, wait: float = 0.0
) -> Iterator[Callable[[], None]]:
    """Hold a claim, prolonging it in the background; inside itself it is the same claim.

    Args:
        part: 0 for the cycle, from 1 for parts of the members.
        wait: seconds to wait for another holder.

    Yields:
        a function that raises CycleBusy once the claim has been lost.

    Raises:
        CycleBusy: another run holds it.
    """
    key, held = (id(catalog), cycle, variant, part), _held.get() or {}
    if key in held:
        yield held[key]
        return
    claim = _awaited(catalog, cycle, variant, part, wait)
    if part == 0:
        _release_dead(catalog, cycle, variant)
    with _prolonged(catalog, claim) as alive:
        token = _held.set({**held, key: alive})
        try:
            yield alive
        finally:
            _held.reset(token)


@contextmanager
def _prolonged(catalog: Catalog, claim: Claim) -> Iterator[Callable[[], None]]:
    stop, lost = threading.Event(), list[CycleBusy]()

    def prolong() -> None:
        prolonged, pause = time.monotonic(), HEARTBEAT_SECONDS
        while not stop.wait(pause):
            try:
                catalog.heartbeat(claim, ttl=CLAIM_SECONDS)
                prolonged, pause = time.monotonic(), HEARTBEAT_SECONDS
            except CycleBusy as error:
                lost.append(error)
                return
            except Exception as error:  # whatever it is, the claim runs out meanwhile
                pause = HEARTBEAT_SECONDS / 6
                _log.warning("the claim on %s could not be prolonged: %s", subject(claim), error)
                if time.monotonic() - prolonged > CLAIM_SECONDS:
                    reason = f"the claim on {subject(claim)} ran out: it could not be prolonged"
                    lost.append(
                        CycleBusy(
                            f"{reason} ({error})", "a catalog that answers", "run the cycle again"
                        )
                    )
                    return

    thread = threading.Thread(target=prolong, name="claim", daemon=True)
    thread.start()

    def alive() -> None:
        if lost:
            raise lost[0]

    try:
        yield alive
    finally:
        stop.set()
        thread.join()
        if not lost:
            try:
                catalog.release(claim)
            except MosaicError as error:
                _log.warning("the claim on %s could not be released: %s", subject(claim), error)


def held_parts(catalog: Catalog, cycle: Cycle, variant: str) -> list[Claim]:
    """Claims of others, not known to be dead, on a cycle and its parts."""
    return [
        claim for claim in catalog.claims()
        if (claim.cycle, claim.variant) == (cycle, variant) and claim.part >= 0
        and claim.owner != owner() and not has_died(claim.owner)
    ]  # fmt: skip


def _release_dead(catalog: Catalog, cycle: Cycle, variant: str) -> None:
    """Release what processes that died here held below a cycle: nobody may ask for it again."""
    for claim in catalog.claims():
        if (claim.cycle, claim.variant) == (cycle, variant) and has_died(claim.owner):
            catalog.release(claim)


def _awaited(catalog: Catalog, cycle: Cycle, variant: str, part: int, wait: float) -> Claim:
    end = time.monotonic() + wait
    while True:
        try:
            return patiently(
                lambda: _claim(catalog, cycle, variant, part), f"claim on {cycle}", CLAIM_SECONDS
            )
        except CycleBusy:
            if time.monotonic() >= end:
                raise
        time.sleep(0.5)


def _claim(catalog: Catalog, cycle: Cycle, variant: str, part: int) -> Claim:
    try:
        return catalog.claim(cycle, variant, owner(), ttl=CLAIM_SECONDS, part=part)
    except CycleBusy:
        wanted = (cycle, variant, part)
        held = [c for c in catalog.claims() if (c.cycle, c.variant, c.part) == wanted]
        if not held or not has_died(held[0].owner):
            raise
        # Released by owner and time, so that of two that see it dead only one goes on.
        catalog.release(held[0])
        _log.warning("taking %s over from %s, which has died", subject(held[0]), held[0].owner)
        return catalog.claim(cycle, variant, owner(), ttl=CLAIM_SECONDS, part=part)


def owner() -> str:
    """`host:process@place`, where the place is this boot of the machine and this container."""
    return f"{socket.gethostname()}:{os.getpid()}{_place()}"


def has_died(name: str) -> bool:
    """Whether an owner is known to run no more; False for those of other machines."""
    before, _, process = name.partition(":")
    number, sign, place = process.partition("@")
    if before != socket.gethostname() or not sign or f"@{place}" != _place():
        return False
    try:
        return bool(psutil.Process(int(number)).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except (psutil.Error, ValueError):
        return False


def _place() -> str:
    """Where process numbers mean the same; empty where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return ""
    return "@" + hashlib.sha256(f"{boot}{namespace}".encode()).hexdigest()[:8]
