"""The primitive-equation model: transforms, balances, conservation, restarts."""

from __future__ import annotations

import numpy as np
import pytest

from mosaic_core.errors import ConfigurationError, ForecastError
from mosaic_core.simulation.model import DIVERGENCE, FIELDS, Model, State, cold_start
from mosaic_core.simulation.planet import GAS_CONSTANT, find_planet
from mosaic_core.simulation.transforms import Transforms
from mosaic_core.simulation.vertical import (
    CONVERSION,
    FULL_LEVELS,
    HALF_LEVELS,
    HYDROSTATIC,
    LAYERS,
    SIGMA_DOT,
    THICKNESS,
)
from mosaic_core.spectral import EARTH_RADIUS


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(find_planet("terra"), 21)


@pytest.fixture(scope="module")
def developed(model: Model) -> State:
    return run(model, cold_start(model, 0), 72)


def run(model: Model, state: State, steps: int) -> State:
    for _ in range(steps):
        state = model.step(state)
    return state


def same(a: State, b: State) -> bool:
    return a.step == b.step and all(
        np.array_equal(getattr(a, n), getattr(b, n)) for n in ("current", "previous", "forcing")
    )


def test_transforms_round_trip_and_give_back_vorticity_and_divergence() -> None:
    t = Transforms(31, EARTH_RADIUS)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 2, 3, 33)).astype(np.float32) * t.kept
    x[0, 1] = 0
    np.testing.assert_allclose(t.analysis(t.synthesis(x)) * t.kept, x, atol=3e-5)
    x[0, 0, :, 0] = 0
    zeta, delta = x[:, :, :1], x[:, :, 1:2]
    wind = t.synthesis(np.concatenate(t.winds(zeta, delta), axis=2))
    weighted = t.analysis(wind / np.cos(t.latitude)[:, None].astype(np.float32) ** 2)
    curl, divergence = t.curl_and_divergence(weighted[:, :, :1], weighted[:, :, 1:])
    np.testing.assert_allclose(curl, zeta, atol=3e-4)
    np.testing.assert_allclose(divergence, delta, atol=3e-4)


def test_vertical_matrices_conserve_energy_and_mass() -> None:
    # what a column's mass divergence does to its geopotential it takes from its heat
    np.testing.assert_allclose(
        HYDROSTATIC.T * THICKNESS, (GAS_CONSTANT * CONVERSION.T * THICKNESS).T, rtol=1e-12
    )
    mass = np.random.default_rng(0).normal(size=LAYERS)
    flux = np.concatenate([[0], SIGMA_DOT @ mass, [0]])
    total = THICKNESS @ mass
    np.testing.assert_allclose(np.diff(flux) / THICKNESS + mass, total, rtol=1e-10)


def test_full_levels_lie_within_their_layers() -> None:
    assert np.all(HALF_LEVELS[:-1] < FULL_LEVELS)
    assert np.all(HALF_LEVELS[1:] > FULL_LEVELS)


def test_isothermal_rest_over_flat_ground_stays_at_rest() -> None:
    model = Model(find_planet("held-suarez"), 21)
    current = np.zeros((22, 2, FIELDS, 23), np.float32)
    after = run(model, State(0, current, current, np.zeros((48, 32, 64), np.float32)), 1)
    assert np.abs(after.current[:, :, : DIVERGENCE.stop]).max() < 1e-12


@pytest.mark.parametrize("split", [1, 2, 7, 19])
def test_a_run_split_anywhere_equals_the_unbroken_one(model: Model, split: int) -> None:
    start = cold_start(model, 3)
    unbroken = run(model, start, 20)
    half = run(model, start, split)
    assert half.previous is not None
    assert half.forcing is not None
    copied = State(half.step, half.current.copy(), half.previous.copy(), half.forcing.copy())
    another = Model(find_planet("terra"), 21)
    assert same(run(another, copied, 20 - split), unbroken)


def test_a_step_does_not_change_its_state(model: Model, developed: State) -> None:
    assert developed.previous is not None
    assert developed.forcing is not None
    before = developed.current.copy(), developed.previous.copy(), developed.forcing.copy()
    model.step(developed)
    for name, array in zip(("current", "previous", "forcing"), before, strict=True):
        np.testing.assert_array_equal(getattr(developed, name), array)


def test_seed_decides_the_run(model: Model) -> None:
    assert np.array_equal(cold_start(model, 1).current, cold_start(model, 1).current)
    assert not np.array_equal(cold_start(model, 1).current, cold_start(model, 2).current)


def test_dry_mass_is_conserved(model: Model, developed: State) -> None:
    """To what one step can lose: the next step puts it back."""
    t = model.transforms
    state = developed
    for _ in range(4):
        state = run(model, state, 9)
        pressure = 1e5 * np.exp(t.synthesis(state.current[:, :, -1:])[0].astype(float))
        assert t.mean(pressure) == pytest.approx(model.planet.surface_pressure, rel=3e-5)


def test_winds_stay_within_what_the_time_step_allows(model: Model, developed: State) -> None:
    t = model.transforms
    u, v = t.winds(developed.current[:, :, :LAYERS], developed.current[:, :, DIVERGENCE])
    grid = t.synthesis(np.concatenate([u, v], axis=2)) / np.cos(t.latitude)[:, None]
    assert 5 < np.abs(grid).max() < 110


def test_blow_up_is_an_error_not_a_field_of_nan(model: Model, developed: State) -> None:
    broken = developed.current.copy()
    broken[3, 0, 0, 5] = np.nan
    with pytest.raises(ForecastError, match="blew up"):
        run(model, State(developed.step, broken, developed.previous, developed.forcing), 2)


def test_unknown_truncation_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="T30"):
        Transforms(30, EARTH_RADIUS)


def test_unknown_planet_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'terra'"):
        find_planet("tera")
