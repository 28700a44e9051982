import threading

import numpy as np
import pytest
import xarray as xr

from mosaic_core.products.fields import ahead, ascending


def test_what_comes_next_is_read_while_the_one_before_is_worked_on():
    started = [threading.Event() for _ in range(3)]

    def read(key):
        started[key].set()
        return 10 * key

    values = ahead(read, range(3))
    assert next(values) == 0
    assert started[1].wait(60)
    assert not started[2].is_set()
    assert list(values) == [10, 20]
    assert list(ahead(read, [])) == []


def test_an_error_of_reading_ahead_comes_up_in_its_place():
    values = ahead(lambda key: 6 // key, [1, 0, 2])
    assert next(values) == 6
    with pytest.raises(ZeroDivisionError):
        next(values)


def test_ascending_turns_only_what_descends():
    array = xr.DataArray(
        np.arange(6.0).reshape(2, 3),
        {"latitude": [1.0, -1.0], "longitude": [0.0, 120.0, 240.0]},
        ("latitude", "longitude"),
    )
    turned = ascending(array)
    assert turned.latitude.values.tolist() == [-1, 1]
    assert turned.values.tolist() == [[3, 4, 5], [0, 1, 2]]
    assert ascending(turned) is turned
