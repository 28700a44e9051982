import hashlib
import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mosaic_core.products.product import ProductFailure, build_products, load_products
from mosaic_core.products.statistics import statistics
from mosaic_core.sorting import sort_members
from mosaic_core.storage import open_store
from tests.products.ensembles import context_of, ensemble

P = (0.1, 0.25, 0.5, 0.75, 0.9)
NAMES = [
    "2m_temperature",
    *(f"{v}_{p}" for v in ("geopotential", "temperature") for p in (500, 850)),
]


def build(forecast, folder, config=None, **context):
    products = load_products(config or {"statistics": {"window": 2}})
    store = open_store(folder)
    return build_products(products, forecast, context_of(forecast, **context), store, "run")[0]


def read(folder, name="statistics"):
    return xr.open_zarr(folder / "run" / f"{name}.zarr", chunks=None, consolidated=True)


@pytest.mark.parametrize("n", [1, 2, 3, 24, 51])
def test_members_are_sorted_at_every_point(n):
    members = np.random.default_rng(n).normal(size=(n, 97)).astype(np.float32)
    assert np.array_equal(sort_members(members), np.sort(members, axis=0))


@pytest.mark.parametrize("n", [2, 3, 24, 51])
def test_statistics_agree_with_numpy(n):
    members = np.random.default_rng(1).normal(280, 8, size=(n, 3, 5, 7)).astype(np.float32)
    got, exact = statistics(members, P), members.astype(np.float64)
    assert np.allclose(got["mean"], exact.mean(0), rtol=1e-7)
    assert np.allclose(got["standard_deviation"], exact.std(0, ddof=1), rtol=1e-6)
    assert np.array_equal(got["minimum"], members.min(0))
    assert np.array_equal(got["maximum"], members.max(0))
    assert np.allclose(got["quantile"], np.quantile(exact, P, axis=0), rtol=1e-7)


@settings(deadline=None, max_examples=150)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(2, 9), st.integers(1, 6)),
        elements=st.floats(-(2.0**60), 2.0**60, width=32),
    )
)
def test_statistics_are_ordered_for_any_members(members):
    got = statistics(members, P)
    steps = np.stack([got["minimum"], *got["quantile"], got["maximum"]])
    assert np.all(np.diff(steps, axis=0) >= 0)
    assert np.all(got["minimum"] <= got["mean"])
    assert np.all(got["mean"] <= got["maximum"])
    assert np.all(got["standard_deviation"] >= 0)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 12), st.randoms(use_true_random=False))
def test_order_of_members_matters_only_to_rounding(n, random):
    members = np.random.default_rng(n).normal(size=(n, 11)).astype(np.float32)
    order = random.sample(range(n), n)
    one, other = statistics(members, P), statistics(members[order], P)
    for name in one:
        assert np.allclose(one[name], other[name], rtol=1e-6, atol=1e-7)


def test_store_opens_with_xarray_and_holds_the_statistics(tmp_path):
    forecast = ensemble(NAMES, members=5, steps=5)
    result = build(forecast, tmp_path)
    assert not isinstance(result, ProductFailure), result
    got = read(tmp_path)
    z = forecast["geopotential"].astype(np.float64)
    assert got["geopotential"].dims == ("lead_time", "level", "latitude", "longitude")
    assert np.allclose(got["geopotential"], z.mean("number"), rtol=1e-7)
    deviation = z.std("number", ddof=1)
    assert np.allclose(got["geopotential_standard_deviation"], deviation, rtol=1e-6)
    assert np.allclose(got["geopotential_quantile"], z.quantile(P, "number"), rtol=1e-7)
    assert np.array_equal(got["2m_temperature_maximum"], forecast["2m_temperature"].max("number"))
    assert np.allclose(
        got["2m_temperature_quantile"].sel(quantile=0.9),
        forecast["2m_temperature"].quantile(0.9, "number"),
        rtol=1e-6,
    )
    for name in ("lead_time", "valid_time", "init_time", "latitude", "longitude", "level"):
        assert got[name].equals(forecast[name].drop_vars("number", errors="ignore"))


def test_attributes_say_what_each_array_is(tmp_path):
    build(ensemble(NAMES, members=5), tmp_path, trained=False, licence="CC-BY-4.0")
    got = read(tmp_path)
    assert got["geopotential"].attrs["cell_methods"] == "number: mean"
    deviation = got["geopotential_standard_deviation"].attrs
    assert deviation["cell_methods"] == "number: standard_deviation"
    assert "N - 1 = 4" in deviation["comment"]
    assert got["2m_temperature_minimum"].attrs["standard_name"] == "air_temperature"
    assert got["2m_temperature_minimum"].attrs["units"] == "K"
    assert "type 7" in got["quantile"].attrs["comment"]
    assert got.attrs["Conventions"] == "CF-1.11"
    assert got.attrs["quality"] == "Untrained weights: not a forecast"
    assert got.attrs["license"] == "CC-BY-4.0"


def test_shards_hold_whole_windows_and_metadata_is_consolidated(tmp_path):
    build(ensemble(NAMES, steps=5), tmp_path)
    folder = tmp_path / "run" / "statistics.zarr"
    root = json.loads((folder / "zarr.json").read_text())
    metadata = root["consolidated_metadata"]["metadata"]
    assert metadata["geopotential_quantile"]["chunk_grid"]["configuration"]["chunk_shape"] == [
        *(5, 6, 1, 13, 24)
    ]
    shards = [p for p in (folder / "geopotential" / "c").rglob("*") if p.is_file()]
    assert len(shards) == 2  # one a level


def test_run_twice_gives_the_same_bytes(tmp_path):
    digests = []
    for name in ("a", "b"):
        build(ensemble(NAMES), tmp_path / name)
        tree = sorted(p for p in (tmp_path / name).rglob("*") if p.is_file())
        digests.append(
            [
                (p.relative_to(tmp_path / name), hashlib.sha256(p.read_bytes()).digest())
                for p in tree
            ]
        )
    assert digests[0] == digests[1]


def test_result_does_not_depend_on_the_window(tmp_path):
    forecast = ensemble(NAMES, steps=7)
    for window in (1, 3, 8):
        build(forecast, tmp_path / str(window), {"statistics": {"window": window}})
    first, *others = [read(tmp_path / str(window)) for window in (1, 3, 8)]
    assert all(first.identical(other) for other in others)


def test_second_run_replaces_what_a_killed_one_left(tmp_path):
    stale = tmp_path / "run" / "statistics.zarr" / "geopotential" / "c" / "9" / "0"
    stale.mkdir(parents=True)
    (stale / "0").write_bytes(b"left over")
    build(ensemble(NAMES), tmp_path)
    assert not stale.exists()


def test_one_member_is_refused(tmp_path):
    result = build(ensemble(NAMES, members=1), tmp_path)
    assert isinstance(result, ProductFailure)
    assert "2 or more" in result.reason


def test_nan_in_one_member_is_named_and_nothing_is_left(tmp_path):
    forecast = ensemble(NAMES)
    forecast["temperature"].values[2, 1, 0, 3, 3] = np.nan
    result = build(forecast, tmp_path)
    assert isinstance(result, ProductFailure)
    assert "member 3 of temperature" in result.reason
    assert not list(open_store(tmp_path).list("run"))


def test_implausible_values_are_refused_unless_weights_are_untrained(tmp_path):
    forecast = ensemble(NAMES)
    forecast["temperature"] -= 273.15
    result = build(forecast, tmp_path)
    assert isinstance(result, ProductFailure)
    assert "temperature" in result.reason
    assert "outside 120..350" in result.reason
    untrained = build(forecast, tmp_path, trained=False)
    assert not isinstance(untrained, ProductFailure)
    assert any("plausible" in note for note in untrained.notes)


def test_reads_one_window_of_one_channel_at_a_time(tmp_path):
    """The block that the brief allows: all members, `window` steps, one level."""
    forecast = ensemble(NAMES, members=4, steps=6)
    forecast.to_zarr(tmp_path / "ensemble.zarr", zarr_format=3, consolidated=False)
    lazy = xr.open_zarr(tmp_path / "ensemble.zarr", chunks=None, consolidated=False)
    largest = 0
    original = xr.DataArray.values.fget

    def spy(array):
        nonlocal largest
        if "number" in array.dims:
            largest = max(largest, array.size)
        return original(array)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xr.DataArray, "values", property(spy))
        build(lazy, tmp_path)
    assert 0 < largest <= 4 * 2 * 13 * 24
