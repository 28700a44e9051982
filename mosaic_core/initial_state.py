"""The state a forecast starts from."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mosaic_core.channels import Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import AnalysisRejected
from mosaic_core.grid import LatLonGrid


@dataclass(frozen=True, eq=False)
class InitialState:
    """Past analyses on the model grid, in physical units, oldest first.

    Attributes:
        cycle: initial time of the forecast.
        grid: grid of `values`.
        channels: order of the last axis of `values`.
        values: float32 (time, longitude, latitude, channel), units of each channel.
        valid_times: UTC, one for each time, ascending; the last is the initial time, unless
            `degraded` says why an older history was taken.
        provenance: what was read for each time, derived, filled, and every check result.
        degraded: in plain words, what is less than it should be; empty for a sound state.

    Raises:
        AnalysisRejected: shape, type, order of times or a value that is not finite.
    """

    cycle: Cycle
    grid: LatLonGrid
    channels: Channels
    values: NDArray[np.float32]
    valid_times: tuple[datetime, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape = (len(self.valid_times), *self.grid.shape, len(self.channels))
        if self.values.shape != shape or self.values.dtype != np.float32:
            raise AnalysisRejected(
                f"initial state of {self.values.dtype} {self.values.shape}",
                f"float32 {shape} (time, longitude, latitude, channel)",
            )
        times = self.valid_times
        if any(time.tzinfo is None for time in times):
            raise AnalysisRejected("valid times without a zone", "times in UTC")
        if any(later <= earlier for earlier, later in itertools.pairwise(times)):
            raise AnalysisRejected(
                f"valid times {', '.join(t.isoformat() for t in times)}", "each later than the last"
            )
        if times[-1] != self.cycle.init_time and not self.degraded:
            raise AnalysisRejected(
                f"the newest analysis is of {times[-1].isoformat()}",
                f"the initial time {self.cycle}",
                "a start from an older history must be marked degraded",
            )
        finite = np.atleast_1d(np.isfinite(self.values).all(axis=(0, 1, 2))).tolist()
        if not all(finite):
            bad = [str(c) for c, ok in zip(self.channels, finite, strict=True) if not ok]
            raise AnalysisRejected(f"NaN or infinity in {', '.join(bad)}", "finite values")
        self.values.setflags(write=False)

    @cached_property
    def digest(self) -> str:
        """sha256 over grid, channels, times and values: equal only for equal states."""
        digest = hashlib.sha256()
        head = (
            self.cycle.id,
            self.grid.digest,
            ",".join(self.channels.names),
            ",".join(time.isoformat() for time in self.valid_times),
        )
        digest.update("\n".join(head).encode())
        digest.update(np.ascontiguousarray(self.values, dtype="<f4").tobytes())
        return digest.hexdigest()
