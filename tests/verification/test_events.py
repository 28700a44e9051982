"""Events: how they are written, where they happen, and how their sums merge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mosaic_core.channels import Channels
from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.verification.events import Counts, Event, EventSettings, brier, expand, roc
from mosaic_core.verification.regions import Weights
from mosaic_core.verification.rows import event_rows, scores_of
from mosaic_core.verification.settings import VerificationSettings

GRID = LatLonGrid.with_poles(24, 13)
WEIGHTS = Weights.of(GRID)
SHAPE = (GRID.nlat, GRID.nlon)


def test_a_line_of_settings_makes_an_event_a_threshold_in_the_fields_units() -> None:
    made = expand(
        [
            EventSettings("2m_temperature", above=(30.0,), below=(0.0, -5.5), units="degC"),
            EventSettings("wind_850", above=(20.0,)),
        ]
    )
    assert [(e.label, e.above, e.threshold) for e in made] == [
        ("2m_temperature_above_30_degC", True, 303.15),
        ("2m_temperature_below_0_degC", False, 273.15),
        ("2m_temperature_below_-5.5_degC", False, 267.65),
        ("wind_850_above_20", True, 20.0),
    ]
    assert made[3].line == ("wind", 850)
    assert made[3].channels.names == ("u_component_of_wind_850", "v_component_of_wind_850")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"field": "10m_wind"}, "thresholds"),
        ({"field": "10m_windd", "above": (1.0,)}, "unknown variable"),
        ({"field": "wind", "above": (1.0,)}, "unknown variable"),
        ({"field": "2m_temperature", "above": (1.0,), "units": "hPa"}, "one of K, degC"),
    ],
)
def test_an_event_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        EventSettings(**wrong)


def test_events_named_twice_are_refused() -> None:
    lines = [EventSettings("10m_wind", above=(5.0, 10.0)), EventSettings("10m_wind", above=(10.0,))]
    with pytest.raises(ConfigurationError, match="10m_wind_above_10"):
        VerificationSettings(("geopotential_500",), events=tuple(lines))


def test_a_model_has_the_events_that_it_has_the_channels_for() -> None:
    settings = VerificationSettings.load()
    found = settings.events_of(Channels.parse(["2m_temperature", "10m_u_component_of_wind"]))
    assert {event.field for event in found} == {"2m_temperature"}


def test_the_speed_is_made_of_both_components() -> None:
    event = expand([EventSettings("10m_wind", above=(4.9,))])[0]
    fields = np.zeros((2, *SHAPE))
    fields[0, 3, 4], fields[1, 3, 4], fields[0, 5, 5] = 3.0, 4.0, 4.0
    channels = Channels.parse(["10m_u_component_of_wind", "10m_v_component_of_wind"])
    assert np.argwhere(event.happens(fields, channels)).tolist() == [[3, 4]]


def counts(seed: int, members: int = 6) -> Counts:
    rng = np.random.default_rng(seed)
    chance = rng.random(SHAPE)
    return Counts.of(rng.random((members, *SHAPE)) < chance, rng.random(SHAPE) < chance, WEIGHTS)


def test_sums_of_forecasts_merge_into_the_scores_of_all() -> None:
    parts = [counts(seed) for seed in range(3)]
    merged = parts[0] + parts[1] + parts[2]
    average = np.mean([brier(part)["brier"] for part in parts], axis=0)
    np.testing.assert_allclose(brier(merged)["brier"], average, rtol=1e-12)
    event = Event("10m_wind", "above_10", True, 10.0)
    sums: dict[str, list[float]] = {}
    for part in parts:
        for row in event_rows({event: part}, WEIGHTS):
            if row["region"] == "tropics":
                total = sums.setdefault(row["metric"], [0.0, 0.0])
                total[0] += row["sum"]
                total[1] += row["weight"]
    found = scores_of({metric: total / weight for metric, (total, weight) in sums.items()})
    tropics = WEIGHTS.names.index("tropics")
    for name in ("brier", "fair_brier", "brier_skill"):
        expected = brier(merged)[name][tropics]
        assert found[f"{name}_above_10"] == pytest.approx(expected, rel=1e-9), name
    with pytest.raises(ConfigurationError, match="one size"):
        merged + counts(0, members=5)


def test_a_reliable_ensemble_is_reliable_and_a_random_one_tells_nothing() -> None:
    total = counts(0, 20)
    for seed in range(1, 60):
        total = total + counts(seed, 20)
    glob = WEIGHTS.names.index("global")
    made = brier(total)
    assert made["reliability"][glob] < 0.01 < made["resolution"][glob]
    assert made["brier_skill"][glob] > 0.2
    assert roc(total)[2][glob] > 0.75
    rng = np.random.default_rng(9)
    blind = Counts.of(rng.random((20, *SHAPE)) < 0.5, rng.random(SHAPE) < 0.5, WEIGHTS)
    assert roc(blind)[2][glob] == pytest.approx(0.5, abs=0.12)
