import json
import warnings

import numpy as np
import pytest
import xarray as xr

from mosaic_core.errors import ConfigurationError
from mosaic_core.products.product import ProductFailure, build_products, load_products
from mosaic_core.storage import open_store
from tests.products.ensembles import context_of, ensemble

NAMES = [
    *("2m_temperature", "10m_u_component_of_wind", "10m_v_component_of_wind"),
    "mean_sea_level_pressure",
    *(f"{name}_{level}" for name in ("geopotential", "temperature", "specific_humidity",
                                     "u_component_of_wind", "v_component_of_wind",
                                     "vertical_velocity") for level in (500, 850)),
]  # fmt: skip


def build(forecast, folder, **settings):
    store = open_store(folder)
    products = load_products({"grib": settings})
    (result,) = build_products(products, forecast, context_of(forecast), store, "run")
    return result


def messages(path):
    """Keys and values of every message, by ecCodes."""
    import eccodes

    wanted = (
        *("shortName", "level", "typeOfLevel", "productDefinitionTemplateNumber", "step"),
        *("dataDate", "dataTime", "packingType"),
    )
    found = []
    with path.open("rb") as stream:
        while (handle := eccodes.codes_grib_new_from_file(stream)) is not None:
            keys = {key: eccodes.codes_get(handle, key) for key in wanted}
            for key in (
                *("perturbationNumber", "numberOfForecastsInEnsemble"),
                *("derivedForecast", "percentileValue"),
            ):
                if eccodes.codes_is_defined(handle, key):
                    keys[key] = eccodes.codes_get(handle, key)
            keys["latitudes"] = eccodes.codes_get_array(handle, "distinctLatitudes")
            found.append((keys, eccodes.codes_get_values(handle)))
            eccodes.codes_release(handle)
    return found


@pytest.mark.parametrize("packing", ["ccsds", "simple"])
def test_members_and_statistics_carry_their_ensemble_templates(tmp_path, packing):
    forecast = ensemble(NAMES, members=3, steps=3)
    result = build(
        forecast, tmp_path, members=["2m_temperature", "temperature_850"], packing=packing,
        derived=["mean", "standard_deviation", "minimum", "maximum"], window=2,
    )  # fmt: skip
    assert not isinstance(result, ProductFailure), result
    members = messages(tmp_path / "run" / "grib" / "members_048h.grib2")
    assert len(members) == 6
    for (keys, values), number in zip(members, [1, 2, 3] * 2, strict=True):
        assert keys["productDefinitionTemplateNumber"] == 1
        assert (keys["perturbationNumber"], keys["numberOfForecastsInEnsemble"]) == (number, 3)
        assert (keys["step"], keys["dataDate"], keys["dataTime"]) == (48, 20261120, 0)
        assert keys["packingType"] == f"grid_{packing}"
        if keys["shortName"] == "2t":
            assert (keys["typeOfLevel"], keys["level"]) == ("heightAboveGround", 2)
            field = forecast["2m_temperature"].sel(number=number).isel(lead_time=1)
        else:
            assert (keys["shortName"], keys["level"]) == ("t", 850)
            field = forecast["temperature"].sel(number=number, level=850).isel(lead_time=1)
        expected = field.values[::-1]
        assert np.abs(values.reshape(expected.shape) - expected).max() <= np.ptp(expected) / 2**16
        assert np.isclose(keys["latitudes"].max(), 90)
    statistics = messages(tmp_path / "run" / "grib" / "statistics_024h.grib2")
    assert len(statistics) == 4 * len(NAMES)
    exact = forecast["geopotential"].isel(lead_time=0).sel(level=500).astype(float)
    reduced = {
        0: exact.mean("number"), 4: exact.std("number", ddof=1),
        8: exact.min("number"), 9: exact.max("number"),
    }  # fmt: skip
    seen = set()
    for keys, values in statistics:
        assert keys["productDefinitionTemplateNumber"] == 2
        if (keys["shortName"], keys["level"]) == ("z", 500):
            expected = reduced[keys["derivedForecast"]].values[::-1]
            seen.add(keys["derivedForecast"])
            error = np.abs(values.reshape(expected.shape) - expected).max()
            assert error <= np.ptp(expected) / 2**16
    assert seen == set(reduced)
    names = {keys["shortName"] for keys, _ in statistics}
    assert names == {"2t", "10u", "10v", "msl", "z", "t", "q", "u", "v", "w"}


def test_the_index_names_every_message_and_its_bytes(tmp_path):
    build(ensemble(NAMES, members=2, steps=1), tmp_path, members="all", statistics=[])
    folder = tmp_path / "run" / "grib"
    content = (folder / "members_024h.grib2").read_bytes()
    lines = [json.loads(line) for line in (folder / "members_024h.index").read_text().splitlines()]
    assert len(lines) == 2 * len(NAMES)
    end = 0
    for line, (keys, _) in zip(lines, messages(folder / "members_024h.grib2"), strict=True):
        assert line["_offset"] == end
        end += line["_length"]
        message = content[line["_offset"] : end]
        assert (message[:4], message[-4:]) == (b"GRIB", b"7777")
        assert (line["param"], line["number"]) == (
            keys["shortName"], str(keys["perturbationNumber"]),
        )  # fmt: skip
        assert line.get("levelist", str(keys["level"])) == str(keys["level"])
    assert end == len(content)
    assert not list(folder.glob("statistics*"))


def test_cfgrib_opens_members_with_their_numbers(tmp_path):
    cfgrib = pytest.importorskip("cfgrib", reason="needs cfgrib")
    forecast = ensemble(NAMES, members=3, steps=1)
    build(forecast, tmp_path, members="all")
    path = tmp_path / "run" / "grib" / "members_024h.grib2"
    with warnings.catch_warnings():
        # cfgrib uses a call of xarray that is to go.
        warnings.simplefilter("ignore")
        opened = cfgrib.open_datasets(str(path), indexpath="")
        levels = next(d for d in opened if "t" in d and "isobaricInhPa" in d.dims)
        surface = next(d for d in opened if "t2m" in d)
        pressure = next(d for d in opened if "msl" in d)
        mean = xr.open_dataset(
            tmp_path / "run" / "grib" / "statistics_024h.grib2",
            engine="cfgrib", indexpath="",
            filter_by_keys={"shortName": "z", "derivedForecast": 0},
        ).load()  # fmt: skip
    assert levels["number"].values.tolist() == [1, 2, 3]
    assert sorted(levels["isobaricInhPa"].values.tolist()) == [500.0, 850.0]
    assert set(levels.data_vars) == {"z", "q", "t", "u", "v", "w"}
    ours = forecast["temperature"].isel(lead_time=0).sel(level=850, number=2).sortby("latitude")
    theirs = levels["t"].sel(isobaricInhPa=850, number=2).sortby("latitude")
    np.testing.assert_allclose(theirs.values, ours.values, atol=2e-3)
    np.testing.assert_allclose(theirs["latitude"], ours["latitude"])
    assert surface["valid_time"].values == np.datetime64("2026-11-21")
    assert pressure["msl"].attrs["units"] == "Pa"
    z = forecast["geopotential"].isel(lead_time=0).sel(level=500).mean("number")
    found = mean["z"].sel(isobaricInhPa=500).sortby("latitude")
    np.testing.assert_allclose(found.values, z.values, atol=0.5)


def test_the_order_of_the_grid_points_changes_no_byte(tmp_path):
    forecast = ensemble(["2m_temperature"], members=3, steps=1)
    turned = forecast.isel(latitude=slice(None, None, -1)).roll(longitude=12, roll_coords=True)
    for folder, given in (("a", forecast), ("b", turned)):
        build(given, tmp_path / folder, members="all", derived=["mean", "standard_deviation"])
    for name in ("members_024h.grib2", "statistics_024h.grib2"):
        one, other = (tmp_path / folder / "run" / "grib" / name for folder in "ab")
        assert one.read_bytes() == other.read_bytes()


def test_what_is_lacking_is_named_and_the_rest_written(tmp_path):
    forecast = ensemble(["2m_temperature"], members=2, steps=2)
    result = build(forecast, tmp_path, members=["2m_temperature", "temperature_500"],
                   lead_hours=[48, 240])  # fmt: skip
    assert "lacks temperature_500" in result.notes[0]
    assert "240 h is no lead time" in result.notes[1]
    files = sorted(path.name for path in (tmp_path / "run" / "grib").iterdir())
    assert files == [
        *("members_048h.grib2", "members_048h.index"),
        *("statistics_048h.grib2", "statistics_048h.index"),
    ]


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigurationError, match="did you mean"):
        load_products({"grib": {"members": ["2m_temprature"]}})
    with pytest.raises(ConfigurationError, match="8 to 24"):
        load_products({"grib": {"bits": 4}})
    with pytest.raises(ConfigurationError, match="one of them"):
        load_products({"grib": {"statistics": []}})


def test_percentiles_are_those_of_numpy(tmp_path):
    forecast = ensemble(["2m_temperature", "mean_sea_level_pressure"], members=6, steps=1)
    build(forecast, tmp_path, statistics=[], percentiles=["2m_temperature"], percents=[10, 50, 100])
    folder = tmp_path / "run" / "grib"
    lines = [
        json.loads(line) for line in (folder / "percentiles_024h.index").read_text().splitlines()
    ]
    assert [line["quantile"] for line in lines] == ["10:100", "50:100", "100:100"]
    field = forecast["2m_temperature"].isel(lead_time=0).transpose("number", ...).values[:, ::-1]
    read = messages(folder / "percentiles_024h.grib2")
    for (keys, values), percent in zip(read, [10, 50, 100], strict=True):
        assert keys["productDefinitionTemplateNumber"] == 6
        assert (keys["shortName"], keys["percentileValue"]) == ("2t", percent)
        expected = np.percentile(field.astype(float), percent, axis=0)
        error = np.abs(values.reshape(expected.shape) - expected).max()
        assert error <= np.ptp(expected) / 2**16
    assert sorted(path.name for path in folder.iterdir()) == [
        "percentiles_024h.grib2", "percentiles_024h.index",
    ]  # fmt: skip


def test_pressure_at_sea_level_has_no_level_of_its_own(tmp_path):
    build(ensemble(["mean_sea_level_pressure"], members=2, steps=1), tmp_path)
    for keys, _ in messages(tmp_path / "run" / "grib" / "statistics_024h.grib2"):
        assert (keys["typeOfLevel"], keys["level"]) == ("meanSea", 0)
