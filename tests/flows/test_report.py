"""What an operator reads: tables of scores."""

from __future__ import annotations

from flows.report import SHOWN, score_table
from mosaic_core.catalog.scores import AverageScore


def score(variable: str, lead: int, metric: str, value: float) -> AverageScore:
    return AverageScore(variable, 500, "global", lead, metric, value, 3)


def test_scores_stand_in_a_row_for_each_variable_and_lead_time() -> None:
    table = score_table(
        [
            score("geopotential", 48, "rmse", 301.23456),
            score("geopotential", 24, "rmse", 160.0),
            score("geopotential", 24, "spread_skill", 1.02),
            score("10m_wind", 24, "brier_10m_wind_above_15", 0.01),
        ]
    )
    assert table == [
        {"variable": "geopotential 500", "lead": "24 h", "rmse": 160.0, "spread_skill": 1.02},
        {"variable": "geopotential 500", "lead": "48 h", "rmse": 301.2},
    ]
    assert "rmse" in SHOWN
