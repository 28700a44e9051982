from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle

FIRST = Cycle.parse("2026-03-01T00Z")
START = datetime(2026, 3, 2, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def catalog(tmp_path: Path, clock: Clock) -> Iterator[Catalog]:
    with Catalog(f"sqlite:///{tmp_path}/catalog.sqlite", clock=clock) as made:
        yield made


def row(cycle: Cycle, total: float, weight: float = 1.0, **changes: Any) -> dict[str, Any]:
    return {
        "cycle": cycle, "model": "hres", "lead_hours": 24, "variable": "geopotential",
        "level": 500, "region": "global", "metric": "rmse", "sum": total, "weight": weight,
        "value": 0.0, "truth_source": "analyses", **changes,
    }  # fmt: skip


def test_averages_are_sums_over_weights(catalog: Catalog) -> None:
    rows = [
        row(FIRST, 4.0, 1.0),
        row(FIRST.shift(6), 9.0, 0.5),
        row(FIRST.shift(12), 100.0),
        row(FIRST, 1.0, level=850),
        row(FIRST, 1.0, region="tropics"),
        row(FIRST, 1.0, truth_source="truth"),
        row(FIRST, 1.0, model="era5"),
    ]
    catalog.record_scores(rows)
    found = catalog.average_scores(
        "hres", "analyses", since=FIRST, until=FIRST.shift(6),
        variable="geopotential", level=500, region="global",
    )  # fmt: skip
    (average,) = found
    assert average.value == pytest.approx(13.0 / 1.5)
    assert (average.cycles, average.lead_hours, average.metric) == (2, 24, "rmse")
    everything = catalog.average_scores("hres", "analyses")
    assert {(a.level, a.region) for a in everything} == {
        (500, "global"), (850, "global"), (500, "tropics"),
    }  # fmt: skip
    assert catalog.truths("hres") == ("analyses", "truth")


def test_a_forecast_was_scored_when_it_was_scored_last(catalog: Catalog, clock: Clock) -> None:
    catalog.record_scores([row(FIRST, 1.0), row(FIRST, 1.0, variable="temperature")])
    clock.now += timedelta(hours=1)
    catalog.record_scores([row(FIRST, 2.0), row(FIRST.shift(6), 1.0)])
    assert catalog.scored("hres", "analyses") == {
        (FIRST, 24): clock.now,
        (FIRST.shift(6), 24): clock.now,
    }
    assert catalog.scored("hres", "analyses", FIRST.shift(6)) == {(FIRST.shift(6), 24): clock.now}
    assert catalog.scored("hres", "truth") == {}
