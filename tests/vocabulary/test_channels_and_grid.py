from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosaic_core.channels import ERA5_82, LEVELS, Channel, Channels
from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid


def test_the_82_channels_are_in_the_published_order() -> None:
    assert len(ERA5_82) == 82
    assert ERA5_82.names[:5] == (
        "2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind",
        "mean_sea_level_pressure", "geopotential_50",
    )  # fmt: skip
    assert ERA5_82.names[-1] == "vertical_velocity_1000"
    assert ERA5_82.variables["temperature"] == LEVELS


@given(st.permutations(ERA5_82.names))
def test_names_are_read_back_in_order(names: list[str]) -> None:
    assert Channels.parse(names).names == tuple(names)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("geopotental_500", "level None"),
        ("temprature", "'temperature'"),
        ("2m_temperature_500", "no level"),
    ],
)
def test_a_wrong_channel_is_refused(name: str, hint: str) -> None:
    with pytest.raises(ConfigurationError):
        Channel.parse(name)


def test_a_channel_named_twice_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="temperature_500"):
        Channels.parse(["temperature_500", "2m_temperature", "temperature_500"])


def test_an_unknown_channel_names_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'geopotential_500'"):
        ERA5_82.index("geopotentail_500")


@given(st.integers(2, 60), st.integers(2, 60))
def test_latitude_weights_are_areas(nlon: int, nlat: int) -> None:
    grid = LatLonGrid.with_poles(nlon, nlat)
    weights = grid.latitude_weights
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(weights, weights[::-1])
    assert (weights > 0).all()


@pytest.mark.parametrize(
    ("longitudes", "latitudes"),
    [
        ((0, 360), (-1, 1)),
        ((0, 90, 45), (-1, 1)),
        ((0, 90), (1, -1)),
        ((0, 90), (-91, 0)),
        ((0,), (0, 1)),
    ],
)
def test_impossible_grids_are_refused(
    longitudes: tuple[float, ...], latitudes: tuple[float, ...]
) -> None:
    with pytest.raises(ConfigurationError):
        LatLonGrid(longitudes, latitudes)


def test_equal_grids_have_equal_digests() -> None:
    assert LatLonGrid.with_poles(24, 13).digest == LatLonGrid.with_poles(24, 13).digest
    assert LatLonGrid.with_poles(24, 13).digest != LatLonGrid.with_poles(13, 24).digest
