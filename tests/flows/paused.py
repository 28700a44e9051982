"""The forecast flow, held in the middle of its rollout while a file is there."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from flows.forecast import forecast
from mosaic_core.ensemble.store import ForecastStore

__all__ = ["forecast"]
FLAG = Path(os.environ["MOSAIC_TEST_PAUSE"])
REACHED = FLAG.with_suffix(".reached")
_write: Any = ForecastStore.write


def _held_write(self: ForecastStore, window: int, *args: Any, **kwargs: Any) -> Any:
    if window > 0 and FLAG.exists():
        REACHED.touch()
        while FLAG.exists():
            time.sleep(0.1)
    return _write(self, window, *args, **kwargs)


ForecastStore.write = _held_write  # type: ignore[method-assign]
