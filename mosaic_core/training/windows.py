"""Windows of consecutive states, in an order that depends on the seed alone, read ahead."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mosaic_core.errors import AnalysisMissing, AnalysisUnreadable, ConfigurationError
from mosaic_core.training.archive import Archive
from mosaic_core.training.recipe import DataConfig, Period

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Window:
    """States around one initial time.

    Attributes:
        history: (state, longitude, latitude, channel), physical units, oldest first.
        targets: (step, longitude, latitude, channel).
    """

    time: datetime
    history: Tensor
    targets: Tensor


class Windows:
    """Windows of one period, in an order that depends on the seed alone.

    Position n of the endless stream is the same window in every run, on any number of processes.
    Each epoch is a permutation (Philox keyed by seed and epoch) of the initial times.

    Raises:
        AnalysisMissing: `missing: stop`, and a time of the period is absent.
        ConfigurationError: no window fits in the period.
    """

    def __init__(
        self, config: DataConfig, period: Period, inputs: Archive, targets: Archive,
        step_hours: int, history: int, steps: int, seed: int,
    ) -> None:  # fmt: skip
        self.config, self.inputs, self.targets = config, inputs, targets
        self.step, self.history, self.seed = timedelta(hours=step_hours), history, seed
        self.skipped: dict[datetime, str] = {}
        self._unreadable: dict[datetime, int] = {}
        first, end = period.bounds
        self.times: list[datetime] = []
        time = first + (history - 1) * self.step
        while time + steps * self.step < end:
            reason = self._absent(time, steps)
            if reason is None:
                self.times.append(time)
            elif config.missing == "stop":
                raise AnalysisMissing(
                    reason, "every time of the period",
                    "complete the archive, shorten the period, or set `missing: skip`",
                )  # fmt: skip
            else:
                self._skip(time, reason)
            time += timedelta(hours=config.every_hours)
        if not self.times:
            raise ConfigurationError(
                f"no window of {history} states and {steps} steps in {period.start} to "
                f"{period.end} of {inputs.url}",
                "at least one",
                "lengthen the period",
            )

    def time(self, n: int) -> datetime:
        """Initial time of window n of the stream."""
        epoch, place = divmod(n, len(self.times))
        order = np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(
            len(self.times)
        )
        return self.times[int(order[place])]

    def changes(
        self, samples: int, step: timedelta
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Targets a step apart, at `samples` times spread evenly over the period.

        Raises:
            AnalysisMissing, AnalysisUnreadable: `missing: stop`, and a time cannot be read.
        """
        for place in np.unique(np.linspace(0, len(self.times) - 1, samples).astype(int)):
            time = self.times[place]
            try:
                yield self.targets.state(time), self.targets.state(time + step)
            except (AnalysisMissing, AnalysisUnreadable):
                if self.config.missing == "stop":
                    raise

    def read(self, time: datetime, steps: int) -> Window:
        """One window; raises as `Archive.state`."""
        past = [self.inputs.state(t) for t in self._past(time)]
        future = [self.targets.state(time + i * self.step) for i in range(1, steps + 1)]
        return Window(time, torch.from_numpy(np.stack(past)), torch.from_numpy(np.stack(future)))

    def draw(self, n: int, steps: int) -> Window:
        """Window n; with `missing: skip`, one that cannot be read is named and replaced.

        What replaces it depends on n, steps and the archive alone, not on what was read before.
        """
        for attempt in range(len(self.times)):
            time = self.time(n + attempt * (7919 * len(self.times) + 1))
            try:
                if steps < self._unreadable.get(time, steps + 1):
                    return self.read(time, steps)
            except (AnalysisMissing, AnalysisUnreadable) as error:
                if self.config.missing == "stop":
                    raise
                self._unreadable[time] = steps
                self._skip(time, str(error))
        raise AnalysisMissing(
            f"no window of {self.inputs.url} can be read", "one at least", "mend the archive"
        )

    def _skip(self, time: datetime, reason: str) -> None:
        if time not in self.skipped:
            self.skipped[time] = reason
            _log.warning("window %s is left out: %s", f"{time:%Y-%m-%dT%HZ}", reason)

    def _past(self, time: datetime) -> list[datetime]:
        return [time - i * self.step for i in reversed(range(self.history))]

    def _absent(self, time: datetime, steps: int) -> str | None:
        past = [(self.inputs, t) for t in self._past(time)]
        future = [(self.targets, time + i * self.step) for i in range(1, steps + 1)]
        for archive, t in past + future:
            if not archive.has(t):
                return f"{archive.url} has no {t:%Y-%m-%dT%HZ}"
        return None


def read_ahead(
    windows: Windows, requests: Iterable[tuple[int, int]], readers: int
) -> Generator[Window, None, None]:
    """Yield windows for (n, steps) in order, some being read while the last one is used."""
    with ThreadPoolExecutor(max(1, readers)) as pool:
        ahead = 2 * max(1, readers)
        waiting: list[Future[Window]] = []
        for n, steps in requests:
            waiting.append(pool.submit(windows.draw, n, steps))
            if len(waiting) > ahead:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
