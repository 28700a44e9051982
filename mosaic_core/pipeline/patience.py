"""A store or database that is away for a while is waited for, not died of."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from mosaic_core.errors import CatalogUnreachable, StoreUnreachable

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0
_log = logging.getLogger(__name__)


def patiently(work: Callable[[], T], what: str, seconds: float) -> T:
    """Do work that can be repeated; again, with growing pauses, while store or catalog are away.

    Args:
        what: names the work in the log.
        seconds: for how long an outage is waited out. Work that went on for longer than that
            before it failed has met a new outage.

    Raises:
        StoreUnreachable, CatalogUnreachable: the outage lasted longer.
    """
    since, pause = time.monotonic(), FIRST_PAUSE
    away: float | None = None
    while True:
        try:
            return work()
        except (StoreUnreachable, CatalogUnreachable) as error:
            now = time.monotonic()
            if away is None or now - since > seconds:
                away, pause = now, FIRST_PAUSE
            if now - away + pause > seconds:
                raise
            _log.warning("%s waits %.0f s and goes on: %s", what, pause, error.found)
        time.sleep(pause * random.uniform(0.8, 1.2))
        since, pause = time.monotonic(), min(2 * pause, LONGEST_PAUSE)
