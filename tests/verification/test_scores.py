from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_core.verification.scores import score_field

WEIGHTS = np.ones((40, 50))


@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 9), seed=st.integers(0, 1000))
def test_fair_crps_is_the_mean_over_pairs(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    members, truth = rng.normal(size=(count, 3, 4)), rng.normal(size=(3, 4))
    found = score_field(members, truth, np.ones((3, 4)))[4]
    pairs = np.abs(members[:, None] - members[None]).sum((0, 1)) / (2 * count * (count - 1))
    assert found == pytest.approx(float((np.abs(members - truth).mean(0) - pairs).mean()))


@pytest.mark.parametrize("count", [2, 5, 20])
def test_fair_crps_does_not_depend_on_ensemble_size(count: int) -> None:
    rng = np.random.default_rng(count)
    members, truth = rng.normal(size=(count, 40, 5000)), rng.normal(size=(40, 5000))
    found = score_field(members, truth, np.ones((40, 5000)))[4]
    assert found == pytest.approx(1 / np.sqrt(np.pi), rel=0.01)


@pytest.mark.parametrize("count", [2, 5, 20])
def test_spread_equals_the_error_of_a_perfect_ensemble(count: int) -> None:
    rng = np.random.default_rng(count)
    members, truth = rng.normal(size=(count, 40, 5000)), rng.normal(size=(40, 5000))
    rmse, bias, mae, spread, _ = score_field(members, truth, np.ones((40, 5000)))
    assert spread == pytest.approx(rmse, rel=0.01)
    assert abs(bias) < 0.01
    assert mae < rmse


def test_weights_count() -> None:
    weights = np.zeros((40, 50))
    weights[0, 0] = 1.0
    members = np.zeros((2, 40, 50))
    members[:, 0, 0] = 3.0
    assert score_field(members, np.zeros((40, 50)), weights)[0] == 3.0
