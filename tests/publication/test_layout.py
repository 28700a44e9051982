"""Keys and what they name are the same thing written twice."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError
from mosaic_core.publication import layout

cycles = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(  # noqa: DTZ001
    lambda time: Cycle.latest_before(time.replace(tzinfo=UTC))
)
names = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,10}[a-z0-9])?", fullmatch=True)


@given(names, cycles, st.integers(1, 300))
def test_folder_of_a_forecast_says_which_it_is(variant, cycle, revision):
    prefix = layout.forecast_prefix(variant, cycle, revision)
    assert layout.parse_forecast_prefix(prefix) == (variant, cycle, revision)
    assert layout.parse_forecast_prefix(prefix + "/") == (variant, cycle, revision)


@given(st.lists(cycles, min_size=2, max_size=5, unique=True))
def test_folders_sort_as_cycles_do(found):
    assert sorted(found) == sorted(found, key=lambda c: layout.forecast_prefix("hres", c))


def test_keys_are_those_of_the_contract():
    cycle = Cycle.parse("2026-11-20T06Z")
    assert layout.analysis_key("grib", cycle) == "analyses/v1/grib/2026/11/20/20261120T06Z.zarr"
    assert layout.forecast_prefix("hres", cycle) == "forecasts/v1/hres/2026/11/20/06Z"
    assert layout.forecast_prefix("hres", cycle, 2) == "forecasts/v1/hres/2026/11/20/06Z.r2"
    assert layout.latest_key("hres") == "forecasts/v1/hres/latest.json"
    assert layout.in_progress_key("hres") == "forecasts/v1/hres/in-progress.json"


@pytest.mark.parametrize(
    "prefix",
    [
        "forecasts/v1/hres/2026/11/20/06Z.r1",
        "forecasts/v1/hres/2026/11/20/06Z.r02",
        "forecasts/v1/hres/2026/11/20/07Z",
        "forecasts/v1/hres/2026/02/30/00Z",
        "forecasts/v2/hres/2026/11/20/06Z",
        "forecasts/v1/hres/2026/11/20/06Z/x",
        "forecasts/v1/../2026/11/20/06Z",
        "",
    ],
)
def test_other_folders_are_refused(prefix):
    with pytest.raises(ConfigurationError, match="is not the folder of a forecast"):
        layout.parse_forecast_prefix(prefix)


@pytest.mark.parametrize("name", ["", "..", "a/b", "HRES", "a b", ".a", "a.", "é"])
def test_names_that_are_no_keys_are_refused(name):
    with pytest.raises(ConfigurationError, match="cannot name"):
        layout.variant_prefix(name)
