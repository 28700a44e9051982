"""From analyses to the state a forecast starts from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import xarray as xr

from mosaic_core import dims
from mosaic_core.analysis.checks import Check, Subject, default_checks, require, run_checks
from mosaic_core.analysis.checks.form import finite
from mosaic_core.analysis.checks.result import CheckResult
from mosaic_core.analysis.fields import plane_of, time_values, to_datetimes
from mosaic_core.analysis.regrid import Finer, dataset_grid, regrid_dataset
from mosaic_core.analysis.sources.base import DEGRADED, PROVENANCE, Source, fetch_analysis
from mosaic_core.analysis.static import StaticFields, shipped_static_fields
from mosaic_core.analysis.store import digest_of, read_analysis, write_analysis
from mosaic_core.channels import Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import (
    AnalysisError,
    AnalysisMissing,
    AnalysisRejected,
    ConfigurationError,
)
from mosaic_core.grid import LatLonGrid
from mosaic_core.initial_state import InitialState
from mosaic_core.storage import ObjectStore


@dataclass(frozen=True)
class HistoryPolicy:
    """What to do when an analysis of the history is missing.

    `stop` refuses. `last_whole_history` starts from the newest time at most `max_age_hours` before
    the cycle whose history is whole, and marks the state degraded.
    """

    missing: Literal["stop", "last_whole_history"] = "stop"
    max_age_hours: int = 12

    def __post_init__(self) -> None:
        if self.max_age_hours < 0:
            raise ConfigurationError(f"max_age_hours {self.max_age_hours}", "0 or more")


def build_initial_state(
    analyses: xr.Dataset,
    cycle: Cycle,
    grid: LatLonGrid,
    channels: Channels,
    step_hours: int,
    states: int,
    policy: HistoryPolicy | None = None,
    *,
    static: StaticFields | None = None,
    checks: Sequence[Check] | None = None,
    finer: Finer = "refuse",
    previous: xr.Dataset | None = None,
) -> InitialState:
    """Regrid, check and stack the analyses that start a forecast.

    Args:
        analyses: what `fetch_analysis` gave: any grid, any times, in any order.
        step_hours, states: the history is `states` analyses, `step_hours` apart.
        static: land and mountains on `grid`; those of the package by default.
        checks: all of them by default.
        previous: the analysis before the history, on `grid`, for staleness and tendency.

    Raises:
        AnalysisMissing: a time of the history is not there, and the policy does not help.
        AnalysisRejected: checks fail; every failure is named.
    """
    policy = policy or HistoryPolicy()
    checks = default_checks() if checks is None else checks
    have = set(to_datetimes(analyses[dims.VALID_TIME].values))
    times, reasons = choose_history(have, cycle, step_hours, states, policy)
    chosen = analyses.sel({dims.VALID_TIME: time_values(times)})
    raw = finite("finite values at the source", chosen, channels)
    ds = regrid_dataset(chosen, grid, finer=finer)
    subject = Subject(ds, channels, times, grid, static or shipped_static_fields(grid), previous)
    results = (raw, *run_checks(checks, subject))
    require(results, f"the analysis from {analyses.attrs.get('source', 'an unnamed source')}")
    degraded = (*reasons, *json.loads(analyses.attrs.get(DEGRADED, "[]")))
    return InitialState(
        cycle,
        grid,
        channels,
        stack_values(ds, channels),
        times,
        _provenance(ds, results, checks, times),
        degraded,
    )


def choose_history(
    have: set[datetime], cycle: Cycle, step_hours: int, states: int, policy: HistoryPolicy
) -> tuple[tuple[datetime, ...], tuple[str, ...]]:
    """The valid times to start from, oldest first, and why they are not the wanted ones.

    Raises:
        AnalysisMissing: see `HistoryPolicy`.
    """
    wanted = cycle.history_times(states, step_hours)
    absent = [time for time in wanted if time not in have]
    if not absent:
        return tuple(wanted), ()
    names = ", ".join(f"{time:%Y-%m-%dT%HZ}" for time in absent)
    if policy.missing == "last_whole_history":
        for start in candidates(cycle, policy, step_hours):
            times = start.history_times(states, step_hours)
            if have.issuperset(times):
                reason = f"no analysis for {names}: starts from the history of {start}"
                return tuple(times), (reason,)
    raise AnalysisMissing(
        f"no analysis for {names}",
        f"{states} analyses, {step_hours} h apart, up to {cycle}"
        + (
            f", or a whole history at most {policy.max_age_hours} h older"
            if policy.missing == "last_whole_history"
            else ""
        ),
        "wait for it; `history: last_whole_history` in the profile starts from older ones",
    )


def candidates(cycle: Cycle, policy: HistoryPolicy, step_hours: int) -> list[Cycle]:
    """Cycles whose history may stand in for that of `cycle`, newest first.

    Steps of the model must lead from them to `cycle`.
    """
    ages = range(step_hours, policy.max_age_hours + 1, step_hours)
    return [cycle.shift(-hours) for hours in ages]


def prepare_initial_state(
    source: Source,
    cycle: Cycle,
    grid: LatLonGrid,
    channels: Channels,
    step_hours: int,
    states: int,
    policy: HistoryPolicy | None = None,
    *,
    store: ObjectStore | None = None,
    static: StaticFields | None = None,
    checks: Sequence[Check] | None = None,
    finer: Finer = "refuse",
) -> InitialState:
    """Fetch what is not stored yet, check it, store it, and build the initial state.

    Each time is fetched, checked and stored alone, oldest first, so that a later cycle, or another
    attempt at this one, finds it. See `build_initial_state`.
    """
    policy = policy or HistoryPolicy()
    got: dict[datetime, xr.Dataset] = {}
    failures: list[AnalysisMissing] = []

    def obtain(time: datetime) -> None:
        if time in got:
            return
        before = got.get(time - timedelta(hours=step_hours))
        try:
            got[time] = checked_analysis(
                source,
                time,
                grid,
                channels,
                store=store,
                static=static,
                checks=checks,
                finer=finer,
                previous=before,
            )
        except AnalysisMissing as error:
            failures.append(error)

    starts = [cycle]
    if policy.missing == "last_whole_history":
        starts += candidates(cycle, policy, step_hours)
    for start in starts:
        times = start.history_times(states, step_hours)
        for time in times:
            obtain(time)
        if all(time in got for time in times):
            break
    if not got or (failures and policy.missing == "stop"):
        raise AnalysisMissing(
            "; ".join(error.found for error in failures),
            f"{states} analyses, {step_hours} h apart, up to {cycle}",
            failures[0].action,
        )
    return build_initial_state(
        _together(got), cycle, grid, channels, step_hours, states, policy,
        static=static, checks=checks, finer=finer,
    )  # fmt: skip


def stored_initial_state(
    store: ObjectStore,
    source: str,
    cycle: Cycle,
    valid_times: Sequence[datetime],
    grid: LatLonGrid,
    channels: Channels,
    step_hours: int,
    *,
    static: StaticFields | None = None,
    checks: Sequence[Check] | None = None,
) -> InitialState:
    """The initial state from the stored analyses of just these times, whatever else has come since.

    Raises:
        AnalysisMissing: one of them is not stored any more.
    """
    parts = {time: read_analysis(store, source, time, channels, grid) for time in valid_times}
    absent = [time for time, part in parts.items() if part is None]
    if absent:
        raise AnalysisMissing(
            f"the analysis of {absent[0]:%Y-%m-%dT%HZ} is not stored any more",
            "the analyses that the run was begun with",
            "run the cycle again from its start",
        )
    behind = (cycle.init_time - max(valid_times)) // timedelta(hours=1)
    return build_initial_state(
        _together({time: part for time, part in parts.items() if part is not None}),
        cycle, grid, channels, step_hours, len(parts),
        HistoryPolicy("last_whole_history", max_age_hours=behind), static=static, checks=checks,
    )  # fmt: skip


def checked_analysis(
    source: Source,
    valid_time: datetime,
    grid: LatLonGrid,
    channels: Channels,
    *,
    store: ObjectStore | None = None,
    static: StaticFields | None = None,
    checks: Sequence[Check] | None = None,
    finer: Finer = "refuse",
    previous: xr.Dataset | None = None,
) -> xr.Dataset:
    """One checked analysis on the model grid: from the store, or fetched and then stored.

    Raises:
        AnalysisMissing, AnalysisUnreadable, AnalysisRejected: from the source, or by the checks.
        IntegrityError: the stored one is damaged.
    """
    if store is not None:
        stored = read_analysis(store, source.name, valid_time, channels, grid)
        if stored is not None:
            return stored
    checks = default_checks() if checks is None else checks
    try:
        fetched = fetch_analysis(source, Cycle(valid_time), channels, [valid_time])
    except AnalysisError as error:
        error.valid_time = valid_time
        raise
    raw = finite("finite values at the source", fetched, channels)
    ds = regrid_dataset(fetched, grid, finer=finer)
    static = static or shipped_static_fields(grid)
    subject = Subject(ds, channels, (valid_time,), grid, static, previous)
    results = (raw, *run_checks(checks, subject))
    try:
        require(results, f"the analysis of {valid_time:%Y-%m-%dT%HZ} from {source.name}")
    except AnalysisRejected as error:
        error.valid_time, error.digest = valid_time, digest_of(ds, channels)
        error.verdicts = {result.check: result.status for result in results}
        raise
    if store is not None:
        plain = [result.as_dict() for result in results]
        write_analysis(store, ds, source.name, channels, plain)
    return ds


def stack_values(ds: xr.Dataset, channels: Channels) -> Any:
    """Values as the model takes them: float32 (time, longitude, latitude, channel)."""
    grid = dataset_grid(ds)
    times = ds.sizes[dims.VALID_TIME]
    values = np.empty((times, *grid.shape, len(channels)), np.float32)
    for i, channel in enumerate(channels):
        values[..., i] = plane_of(ds, channel).values.transpose(0, 2, 1)
    return values


def _together(parts: dict[datetime, xr.Dataset]) -> xr.Dataset:
    """Join analyses of single times; their provenance and flags are joined too."""
    ordered = [parts[time] for time in sorted(parts)]
    ds = xr.concat(ordered, dims.VALID_TIME, combine_attrs="override", join="exact")
    provenance = [entry for part in ordered for entry in json.loads(part.attrs[PROVENANCE])]
    degraded = sorted({text for part in ordered for text in json.loads(part.attrs[DEGRADED])})
    return ds.assign_attrs({PROVENANCE: json.dumps(provenance), DEGRADED: json.dumps(degraded)})


def _provenance(
    ds: xr.Dataset,
    results: Sequence[CheckResult],
    checks: Sequence[Check],
    times: Sequence[datetime],
) -> dict[str, Any]:
    wanted = {f"{time:%Y-%m-%dT%H:%MZ}" for time in times}
    entries = json.loads(ds.attrs.get(PROVENANCE, "[]"))
    run = {check.name for check in checks}
    return {
        "source": ds.attrs.get("source", ""),
        "regridding": ds.attrs.get("regridding", ""),
        "inputs": [entry for entry in entries if entry["valid_time"] in wanted],
        "checks": [result.as_dict() for result in results],
        "checks_left_out": [c.name for c in default_checks() if c.name not in run],
    }
