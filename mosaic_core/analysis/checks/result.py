"""Checks on an analysis: what they see, what they say, and the one error they end in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core import dims
from mosaic_core.analysis.fields import to_datetimes
from mosaic_core.analysis.static import StaticFields
from mosaic_core.channels import Channel, Channels
from mosaic_core.errors import AnalysisRejected
from mosaic_core.grid import LatLonGrid

Status = Literal["passed", "failed", "skipped"]
Stack = NDArray[np.float64]


@dataclass(frozen=True)
class CheckResult:
    """What one check says. `skipped` means that it does not apply, and `found` says why."""

    check: str
    status: Status
    found: str
    expected: str = ""
    channels: tuple[str, ...] = ()
    valid_times: tuple[str, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest and the catalog."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return f"{self.check}: {self.found}" + (
            f" (expected {self.expected})" if self.expected else ""
        )


@dataclass(frozen=True, eq=False)
class Subject:
    """An analysis under check, and what it is held against.

    Attributes:
        dataset: one or more valid times, on the model grid.
        channels, valid_times, grid: what it must have.
        static: land and mountains on that grid; None skips the checks that need them.
        previous: the analysis before, on the same grid, if there is one.
    """

    dataset: xr.Dataset
    channels: Channels
    valid_times: tuple[datetime, ...]
    grid: LatLonGrid
    static: StaticFields | None = None
    previous: xr.Dataset | None = None

    def has(self, variable: str, level: int | None = None) -> bool:
        """Whether a channel is asked for and there."""
        return Channel(variable, level) in self.channels.items and has_channel(
            self.dataset, Channel(variable, level)
        )

    def stack(self, variable: str, level: int | None = None) -> Stack:
        """One channel, (time, latitude, longitude), float64."""
        return stack_of(self.dataset, Channel(variable, level))

    def levels(self, *variables: str) -> tuple[int, ...]:
        """Levels (hPa, from the ground up) on which all of `variables` are there."""
        known = self.channels.variables
        common = set.intersection(*(set(known.get(v, ())) for v in variables))
        return tuple(
            sorted((lv for lv in common if all(self.has(v, lv) for v in variables)), reverse=True)
        )

    @cached_property
    def weights(self) -> Stack:
        """Area of each point, (latitude, 1), mean 1."""
        return self.grid.latitude_weights[:, None]

    @cached_property
    def times(self) -> tuple[str, ...]:
        values = self.dataset[dims.VALID_TIME].values
        return tuple(f"{t:%Y-%m-%dT%HZ}" for t in to_datetimes(values))


class Check(Protocol):
    """A small frozen object with a name."""

    @property
    def name(self) -> str: ...

    def run(self, subject: Subject) -> Iterable[CheckResult]:
        """One result or more; never raises for a bad analysis."""


def run_checks(checks: Sequence[Check], subject: Subject) -> tuple[CheckResult, ...]:
    """Run every check, whatever the others say.

    A check that stumbles over the analysis itself (a variable of the wrong shape, say) is a
    failure with that reason, so that the rest is still reported.
    """
    results: list[CheckResult] = []
    for check in checks:
        try:
            with np.errstate(all="ignore"):
                results += check.run(subject)
        except (KeyError, ValueError, IndexError) as error:
            found = f"cannot be evaluated ({type(error).__name__}: {error})"
            results.append(CheckResult(check.name, "failed", found, "an analysis in due form"))
    return tuple(results)


def require(results: Iterable[CheckResult], subject: str = "the analysis") -> None:
    """Raise one error that names every failure.

    Raises:
        AnalysisRejected: at least one check failed.
    """
    failures = [result for result in results if result.status == "failed"]
    if failures:
        raise AnalysisRejected(
            f"{subject} fails {len(failures)} checks: " + "; ".join(map(str, failures)),
            "an analysis that passes every check",
            "look at the source; wait for a corrected analysis or choose another source",
        )


def judge(
    check: str,
    failures: Sequence[str],
    sound: str,
    expected: str,
    *,
    channels: Sequence[str] = (),
    times: Sequence[str] = (),
    values: Mapping[str, float] | None = None,
) -> CheckResult:
    """Failed with all `failures`, or passed with the words `sound`."""
    status: Status = "failed" if failures else "passed"
    found = ", ".join(failures) or sound
    named = tuple(channels) if failures else ()
    return CheckResult(check, status, found, expected, named, tuple(times), values or {})


def has_channel(ds: xr.Dataset, channel: Channel) -> bool:
    if channel.variable not in ds:
        return False
    array = ds[channel.variable]
    if channel.level is None:
        return dims.LEVEL not in array.dims
    return dims.LEVEL in array.dims and channel.level in ds[dims.LEVEL].values


def stack_of(ds: xr.Dataset, channel: Channel) -> Stack:
    array = ds[channel.variable]
    if channel.level is not None:
        array = array.sel({dims.LEVEL: channel.level})
    ordered = array.transpose(dims.VALID_TIME, dims.LATITUDE, dims.LONGITUDE)
    return ordered.values.astype(np.float64)
