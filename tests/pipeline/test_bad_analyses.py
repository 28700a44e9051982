"""Analyses that must not start a forecast: each is refused by name, and leaves a row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.publication import client
from tests.pipeline.command import mosaic
from tests.pipeline.world import FIRST, SECOND, World, analyses, plain, write_source

Spoil = Callable[[xr.Dataset], xr.Dataset]


def stale(ds: xr.Dataset) -> xr.Dataset:
    ds["temperature"][-1] = ds["temperature"][-2]
    return ds


def with_nan(ds: xr.Dataset) -> xr.Dataset:
    ds["2m_temperature"][-1, 4, 7] = np.nan
    return ds


def twice(ds: xr.Dataset) -> xr.Dataset:
    return xr.concat([ds, ds.isel(time=[-1])], "time")


def rotated(ds: xr.Dataset) -> xr.Dataset:
    last = ds.isel(time=[-1]).roll(longitude=12, roll_coords=False)
    return xr.concat([ds.isel(time=slice(-1)), last], "time")


def in_celsius(ds: xr.Dataset) -> xr.Dataset:
    ds["2m_temperature"][-1] -= 273.15
    return ds


def in_declared_celsius(ds: xr.Dataset) -> xr.Dataset:
    ds["2m_temperature"].attrs["units"] = "degC"
    return ds


def without_a_level(ds: xr.Dataset) -> xr.Dataset:
    return ds.drop_sel(level=850)


# What is wrong -> how, the words that name it, the state of the analysis in the catalog.
SPOILT: dict[str, tuple[Spoil, tuple[str, ...], str | None]] = {
    "stale": (stale, ("temperature at 500 hPa is identical to the time before",), "rejected"),
    "NaN": (with_nan, ("2m_temperature", "NaN or infinite at 1 points"), "rejected"),
    "duplicated": (twice, ("2026-03-28T18:00Z 2 times",), "rejected"),
    "rotated": (rotated, ("orientation on the continents", "180"), "rejected"),
    "wrong units": (in_celsius, ("2m_temperature has mean", "287"), "rejected"),
    "declared in wrong units": (in_declared_celsius, ("2m_temperature", "degC"), "rejected"),
    "missing level": (without_a_level, ("temperature at 850 hPa",), None),
    "missing time": (lambda ds: ds.isel(time=slice(-1)), ("to 2026-03-28T12Z",), None),
}  # fmt: skip


def require_refused(world: World, words: tuple[str, ...], state: str | None) -> None:
    outcome = mosaic("run", str(SECOND), "-p", world.profile)
    assert outcome.code == 3, outcome.err
    for word in words:
        assert word in outcome.err
    assert "what to do:" in outcome.err
    assert client.latest(world.store).cycle == FIRST
    assert [m.cycle for m in client.list_forecasts(world.store)] == [FIRST]
    assert client.verify(world.store).ok
    with Catalog(world.catalog) as catalog:
        (run,) = catalog.runs(cycle=SECOND)
        assert run.state == "failed"
        assert run.error is not None
        assert words[0] in run.error
        assert [a.state for a in catalog.analyses(cycle=SECOND)] == ([state] if state else [])
        (event,) = catalog.events(kind="ingest-failed")
        assert words[0] in event.detail["error"]
        assert catalog.claims() == ()


@pytest.mark.parametrize("kind", SPOILT)
def test_a_bad_analysis_is_refused_by_name_and_a_corrected_one_is_taken(
    kind: str, second: World
) -> None:
    spoil, words, state = SPOILT[kind]
    write_source(second.source, spoil(analyses()))
    require_refused(second, words, state)
    write_source(second.source, analyses())
    outcome = mosaic("run", str(SECOND), "-p", second.profile, "--json")
    assert outcome.code == 0, outcome.err
    assert plain(outcome.out)["revision"] == 1
    with Catalog(second.catalog) as catalog:
        assert [a.state for a in catalog.analyses(cycle=SECOND)] == ["accepted"]
        (run,) = catalog.runs(cycle=SECOND)
        assert (run.state, run.attempts, run.error) == ("published", 2, None)


def test_a_truncated_analysis_is_unreadable(second: World) -> None:
    chunk = sorted((second.source / "temperature/c/2").rglob("0"))[-1]
    chunk.write_bytes(chunk.read_bytes()[:-40])
    require_refused(second, ("temperature at", str(second.source)), "rejected")
