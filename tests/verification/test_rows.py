from __future__ import annotations

import numpy as np
import pytest

from mosaic_core.channels import Channels
from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.verification.energy import Energy
from mosaic_core.verification.regions import Weights
from mosaic_core.verification.rows import (
    energy_rows,
    parse_variable,
    score_rows,
    scores_of,
    short_name,
)
from mosaic_core.verification.settings import VerificationSettings
from mosaic_core.verification.statistics import Average, scores, statistics

GRID = LatLonGrid.with_poles(24, 13)
WEIGHTS = Weights.of(GRID)
CHANNELS = Channels.parse(["geopotential_500", "2m_temperature"])


def test_rows_of_many_forecasts_add_up_to_the_scores_of_their_average() -> None:
    average, sums = Average(), {}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        fields = [rng.normal(size=(2, GRID.nlat, GRID.nlon)) for _ in range(4)]
        members = rng.normal(size=(5, 2, GRID.nlat, GRID.nlon))
        truth, persistence, climate, deviation = fields
        found = statistics(
            members, truth, WEIGHTS,
            persistence=persistence, climatology=climate, deviation=np.abs(deviation),
        )  # fmt: skip
        average.add(found)
        for row in score_rows(found, CHANNELS, WEIGHTS):
            if (row["variable"], row["region"]) == ("geopotential", "tropics"):
                total = sums.setdefault(row["metric"], [0.0, 0.0])
                total[0] += row["sum"]
                total[1] += row["weight"]
    expected = scores(average.means())
    tropics = WEIGHTS.names.index("tropics")
    merged = scores_of({metric: total / weight for metric, (total, weight) in sums.items()})
    for name, values in expected.items():
        assert merged[name] == pytest.approx(values[0, tropics], rel=1e-12), name
    assert merged["rmse_persistence"] > 0


def test_a_row_has_the_score_of_its_own_forecast_as_value() -> None:
    rng = np.random.default_rng(0)
    members, truth = rng.normal(size=(3, 2, 13, 24)), rng.normal(size=(2, 13, 24))
    rows = list(score_rows(statistics(members, truth, WEIGHTS), CHANNELS, WEIGHTS))
    one = next(r for r in rows if (r["metric"], r["region"]) == ("rmse", "global"))
    assert one["value"] == pytest.approx(np.sqrt(one["sum"] / one["weight"]))
    assert one["level"] == 500
    assert {r["level"] for r in rows} == {0, 500}


def test_rows_weigh_as_much_as_was_observed_and_none_is_made_of_nothing() -> None:
    rng = np.random.default_rng(1)
    members, truth = rng.normal(size=(3, 2, 13, 24)), rng.normal(size=(2, 13, 24))
    truth[0, :7] = np.nan  # the southern half
    observed = WEIGHTS.shares(~np.isnan(truth))
    rows = list(score_rows(statistics(members, truth, WEIGHTS), CHANNELS, WEIGHTS, observed))
    kept = {(r["level"], r["region"]): r["weight"] for r in rows if r["metric"] == "rmse"}
    assert (500, "southern-extratropics") not in kept
    assert kept[500, "northern-extratropics"] == pytest.approx(kept[0, "northern-extratropics"])
    assert 0.4 < kept[500, "global"] < 0.5
    assert all(np.isfinite(row["sum"]) for row in rows)


def test_energies_become_ratios_to_truth() -> None:
    energy = Energy(np.full(32, 1.2), np.full(32, 0.5), np.ones(32))
    rows = list(energy_rows({850: energy}, "global", [(1, 4), (21, 31)]))
    found = scores_of({row["metric"]: row["value"] for row in rows})
    assert found == pytest.approx(
        {"members_l1-4": 1.2, "mean_l1-4": 0.5, "members_l21-31": 1.2, "mean_l21-31": 0.5}
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("z500", ("geopotential", 500)),
        ("geopotential_500", ("geopotential", 500)),
        ("msl", ("mean_sea_level_pressure", 0)),
        ("2t", ("2m_temperature", 0)),
        ("2m_temperature", ("2m_temperature", 0)),
        ("10u", ("10m_u_component_of_wind", 0)),
        ("t850", ("temperature", 850)),
        ("kinetic_energy_250", ("kinetic_energy", 250)),
        ("10m_wind", ("10m_wind", 0)),
        ("wind_850", ("wind", 850)),
    ],
)
def test_variables_are_known_by_both_names(text: str, expected: tuple[str, int]) -> None:
    assert parse_variable(text) == expected


@pytest.mark.parametrize("text", ["z", "msl500", "x500", "geopotential", ""])
def test_an_unknown_variable_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no variable"):
        parse_variable(text)


def test_short_names() -> None:
    assert short_name("geopotential", 500) == "z500"
    assert short_name("mean_sea_level_pressure", 0) == "msl"


def test_the_committed_settings_are_sound() -> None:
    settings = VerificationSettings.load()
    assert settings.regions["global"].north == 90
    everything = Channels.parse([*settings.channels, "u_component_of_wind_500"])
    assert settings.of(everything).names == settings.channels
    assert list(settings.winds(everything)) == [850]
    with pytest.raises(ConfigurationError, match=r"config/verification\.yaml"):
        settings.of(Channels.parse(["temperature_50"]))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="unknown variable"):
        VerificationSettings(("geopotentiel_500",))
    with pytest.raises(ConfigurationError, match="at_most"):
        VerificationSettings(("geopotential_500",), at_most=0)
