from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError

cycles = st.datetimes(
    min_value=datetime(1950, 1, 1),  # noqa: DTZ001
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001
).map(lambda t: Cycle.latest_before(t.replace(tzinfo=UTC)))
zones = st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m)))


@given(cycles)
def test_both_written_forms_are_read_back(cycle: Cycle) -> None:
    assert Cycle.parse(cycle.id) == cycle
    assert Cycle.parse(str(cycle)) == cycle
    assert Cycle.parse(cycle.init_time.isoformat()) == cycle


@given(cycles, zones)
def test_a_cycle_is_the_same_in_any_zone(cycle: Cycle, zone: timezone) -> None:
    assert Cycle(cycle.init_time.astimezone(zone)) == cycle
    assert Cycle(cycle.init_time.astimezone(zone)).id == cycle.id


@given(st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1)), zones)  # noqa: DTZ001
def test_the_latest_cycle_is_less_than_six_hours_back(time: datetime, zone: timezone) -> None:
    aware = time.replace(tzinfo=zone)
    age = aware - Cycle.latest_before(aware).init_time
    assert timedelta(0) <= age < timedelta(hours=6)


@given(cycles, st.integers(1, 60), st.sampled_from([6, 12, 24]))
def test_history_ends_where_the_forecast_begins(cycle: Cycle, count: int, hours: int) -> None:
    history, valid = cycle.history_times(count, hours), cycle.valid_times(count, hours)
    assert history[-1] == cycle.init_time
    assert valid[0] - history[-1] == timedelta(hours=hours)
    steps = {b - a for a, b in zip(history + valid, (history + valid)[1:], strict=False)}
    assert steps == {timedelta(hours=hours)}


@pytest.mark.parametrize(
    "text",
    ["2026112012", "2026-11-20", "20261120T03Z", "2026-02-30T00Z", "now", "2026-11-20T00:30Z"],
)
def test_what_is_no_cycle_is_refused(text: str) -> None:
    if text == "2026112012":
        assert Cycle.parse(text) == Cycle.parse("2026-11-20T12Z")
        return
    with pytest.raises(ConfigurationError) as caught:
        Cycle.parse(text)
    assert caught.value.exit_code == 2


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no time zone"):
        Cycle(datetime(2026, 11, 20))  # noqa: DTZ001


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns", "UTC"])
def test_the_zone_of_the_machine_does_not_matter(zone: str) -> None:
    code = (
        "from mosaic_core.cycle import Cycle; c = Cycle.parse('2026-11-20T18Z');"
        "print(c.id, c.predecessor, c.valid_times(1, 6)[0].isoformat())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TZ": zone},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["20261120T18Z", "2026-11-20T12Z", "2026-11-21T00:00:00+00:00"]
