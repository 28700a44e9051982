from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from mosaic_core.verification.significance import FEWEST, inflation, paired


def series(rng: np.random.Generator, count: int, first: float, second: float) -> np.ndarray:
    """An AR(2) process about 0."""
    noise = rng.normal(size=count + 200)
    return np.asarray(lfilter([1.0], [1.0, -first, -second], noise)[200:])


def by_time(values: np.ndarray, step: int = 6) -> dict[int, float]:
    return {i * step: float(value) for i, value in enumerate(values)}


@pytest.mark.parametrize(("first", "second"), [(0.0, 0.0), (0.6, 0.0), (0.5, 0.2)])
def test_no_difference_is_called_one_about_as_often_as_the_level_says(
    first: float, second: float
) -> None:
    rng = np.random.default_rng(0)
    found = [paired(by_time(series(rng, 120, first, second))) for _ in range(300)]
    wrong = np.mean([each.significant() for each in found])
    assert 0.02 < wrong < 0.11
    naive = [
        abs(each.mean) > 1.96 * series(rng, 120, first, second).std() / np.sqrt(120)
        for each in found
    ]
    if first:
        assert np.mean(naive) > 0.2  # what the correlation would do unaccounted for


def test_a_clear_difference_is_found() -> None:
    rng = np.random.default_rng(1)
    found = paired(by_time(series(rng, 120, 0.5, 0.0) + 1.5))
    assert found.significant()
    assert found.pairs == 120
    assert 20 < found.effective < 70


def test_inflation_of_a_first_order_process_is_the_textbooks() -> None:
    for r in (0.0, 0.3, 0.7):
        assert inflation(r, r * r) == pytest.approx((1 + r) / (1 - r))
    assert inflation(-0.5, 0.25) == 1.0
    assert np.isfinite(inflation(1.0, 1.0))


def test_gaps_do_not_pass_for_steps() -> None:
    rng = np.random.default_rng(2)
    whole = by_time(series(rng, 400, 0.7, 0.0))
    gappy = {time: value for time, value in whole.items() if time // 6 % 10 not in (3, 4, 5)}
    ratio = paired(gappy).effective / len(gappy) / (paired(whole).effective / len(whole))
    assert 0.8 < ratio < 2.0


def test_too_few_pairs_are_never_significant() -> None:
    found = paired(by_time(np.full(FEWEST - 1, 3.0) + np.arange(FEWEST - 1)))
    assert not found.significant()
    assert np.isnan(found.p)
    assert paired({}).pairs == 0


def test_the_same_difference_always_is_significant_and_none_is_not() -> None:
    assert paired(by_time(np.full(20, 2.0))).significant()
    assert not paired(by_time(np.zeros(20))).significant()
