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


def patiently(
    work: Callable[[], T],
    what: str,
    seconds: float,
    progress: Callable[[], object] = lambda: None,
) -> T:
    """Do work that can be repeated; again, with growing pauses, while store or catalog are away.

    Args:
        what: names the work in the log.
        seconds: for how long an outage is waited out.
        progress: how far the work has come, by what is safely written; where it went on since
            the last failure, this is another outage.

    Raises:
        StoreUnreachable, CatalogUnreachable: the outage lasted longer.
    """
    away: float | None = None
    pause, reached = FIRST_PAUSE, progress()
    while True:
        try:
            return work()
        except (StoreUnreachable, CatalogUnreachable) as error:
            now = time.monotonic()
            if away is None or progress() != reached:
                away, pause, reached = now, FIRST_PAUSE, progress()
            if now - away + pause > seconds:
                raise
            _log.warning("%s waits %.0f s and goes on: %s", what, pause, error.found)
        time.sleep(pause * random.uniform(0.8, 1.2))
        pause = min(2 * pause, LONGEST_PAUSE)
