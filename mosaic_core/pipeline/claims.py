"""The claim of a run on its cycle: prolonged while it works, taken from a process that has died."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.catalog.models import Claim
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CycleBusy, MosaicError

CLAIM_SECONDS = 120.0
_log = logging.getLogger(__name__)


@contextmanager
def claimed(catalog: Catalog, cycle: Cycle, variant: str) -> Iterator[Callable[[], None]]:
    """Hold the claim on a cycle, prolonging it in the background.

    Yields:
        a function that raises CycleBusy once the claim has been lost.

    Raises:
        CycleBusy: another run holds it.
    """
    claim = _claim(catalog, cycle, variant)
    stop, lost = threading.Event(), list[CycleBusy]()

    def prolong() -> None:
        prolonged = time.monotonic()
        while not stop.wait(CLAIM_SECONDS / 4):
            try:
                catalog.heartbeat(claim, ttl=CLAIM_SECONDS)
                prolonged = time.monotonic()
            except CycleBusy as error:
                lost.append(error)
                return
            except Exception as error:  # whatever it is, the claim runs out meanwhile
                _log.warning("the claim on %s could not be prolonged: %s", cycle, error)
                if time.monotonic() - prolonged > CLAIM_SECONDS:
                    reason = f"the claim on {cycle} ran out: it could not be prolonged ({error})"
                    lost.append(CycleBusy(reason, "a catalog that answers", "run the cycle again"))
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
                _log.warning("the claim on %s could not be released: %s", cycle, error)


def _claim(catalog: Catalog, cycle: Cycle, variant: str) -> Claim:
    try:
        return catalog.claim(cycle, variant, owner(), ttl=CLAIM_SECONDS)
    except CycleBusy:
        held = [c for c in catalog.claims() if (c.cycle, c.variant) == (cycle, variant)]
        if not held or not has_died(held[0].owner):
            raise
        # Released by owner and time, so that of two that see it dead only one goes on.
        catalog.release(held[0])
        _log.warning("taking %s %s over from %s, which has died", variant, cycle, held[0].owner)
        return catalog.claim(cycle, variant, owner(), ttl=CLAIM_SECONDS)


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
