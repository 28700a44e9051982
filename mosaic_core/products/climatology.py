"""The climate at every point: quantiles and means, by day of the year where there are seasons.

    python -m mosaic_core.products.climatology ARCHIVE --output FILE.nc --step-hours 6

makes it of a Zarr archive of analyses in WeatherBench layout (or of the simulation's). The file is
netCDF: `2m_temperature(quantile, [dayofyear,] latitude, longitude)` and `2m_temperature_mean`. Each
value that went in is the mean or the maximum of one day (00, 24] at the steps of the forecast that
will be compared with it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from mosaic_core.channels import Channel
from mosaic_core.dims import LATITUDE, LEVEL, LONGITUDE
from mosaic_core.errors import AnalysisMissing, AnalysisUnreadable, ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.products.fields import ascending, channels_of, units_of
from mosaic_core.products.product import ProductContext

Float = NDArray[np.float32]

FORMAT: Final = "mosaic-quantiles/1"
SHIPPED: Final = Path(__file__).parent / "assets" / "climate-terra-T31-72x37.nc"
QUANTILE: Final = "quantile"
DAY: Final = "dayofyear"
DAY_HOURS: Final = 24
PROBABILITIES: Final = tuple(
    round(p, 2) for p in (0, 0.01, 0.02, 0.05, *np.arange(0.1, 0.91, 0.05), 0.95, 0.98, 0.99, 1)
)
FIELDS: Final = {
    "2m_temperature": "mean",
    "10m_wind": "maximum",
    "temperature_850": "mean",
}
_FINENESS: Final = 64
_YEAR: Final = 365.25


@dataclass(frozen=True)
class Climate:
    """A climatology that was opened for one grid and step.

    Attributes:
        dataset: as in the file, latitude and longitude ascending; packed in memory, so that only
            the days that are looked at are there in full.
        path: where it came from, for messages.
    """

    dataset: xr.Dataset
    path: Path

    @property
    def fields(self) -> tuple[str, ...]:
        names = (str(name) for name in self.dataset.data_vars)
        return tuple(name for name in names if not name.endswith("_mean"))

    @property
    def probabilities(self) -> NDArray[np.float64]:
        return np.asarray(self.dataset[QUANTILE].values, np.float64)

    def statistic(self, field: str) -> str:
        """`mean` or `maximum` of a day."""
        return str(self.dataset[field].attrs["statistic"])

    def at(self, name: str, time: np.datetime64) -> Float:
        """The variable `name` on the day of `time`: ([quantile,] latitude, longitude).

        Between the days of the file it is linear, around the end of the year too.
        """
        array = self.dataset[name]
        if DAY not in array.dims:
            return np.asarray(array.values, np.float32)
        days = np.asarray(array[DAY].values, float)
        year = time.astype("datetime64[Y]")
        day = 1 + (time - year) / np.timedelta64(1, "D")
        after = int(np.searchsorted(days, day, side="right"))
        low, high = (after - 1) % days.size, after % days.size
        gap = (days[high] - days[low]) % _YEAR or _YEAR
        weight = ((day - days[low]) % _YEAR) / gap
        first, second = (array.isel({DAY: i}).values.astype(np.float32) for i in (low, high))
        return np.asarray(first + np.float32(weight) * (second - first), np.float32)


def read(path: Path) -> Climate:
    """Open a file that this module made.

    Raises:
        AnalysisMissing: no such file.
        AnalysisUnreadable: damaged, or of another format.
    """
    if not path.is_file():
        raise AnalysisMissing(
            f"no climatology {path}",
            "a file of quantiles",
            "make it: `python -m mosaic_core.products.climatology`, see docs/products.md",
        )
    try:
        with xr.open_dataset(path, engine="netcdf4", decode_cf=False) as stored:
            dataset = xr.decode_cf(stored.load())
    except (OSError, ValueError, RuntimeError) as error:
        raise AnalysisUnreadable(f"{path}: {error}", FORMAT, "make it again") from error
    if dataset.attrs.get("format") != FORMAT:
        raise AnalysisUnreadable(
            f"{path} has the format {dataset.attrs.get('format')!r}", FORMAT, "make it again"
        )
    return Climate(ascending(dataset), path)


def of(path: str | None, forecast: xr.Dataset, context: ProductContext) -> Climate:
    """The climatology of a forecast: the named file, or the shipped one of the simulated planet.

    Raises:
        ConfigurationError: none is named for a forecast of the Earth, or it is of another grid or
            of other steps.
    """
    if path is None and context.static is None:
        raise ConfigurationError(
            "no climatology is named, and the package has none of the Earth",
            "`climatology: FILE.nc` in config/products.yaml",
            "make one of an archive of analyses: docs/products.md",
        )
    found = read(SHIPPED if path is None else Path(path))
    own, wanted = (
        LatLonGrid(*(tuple(np.sort(d[k].values).tolist()) for k in (LONGITUDE, LATITUDE)))
        for d in (found.dataset, forecast)
    )
    if not own.is_close(wanted):
        raise ConfigurationError(
            f"{found.path} is on {own} points, the forecast on {wanted}", "the forecast's grid"
        )
    steps = int(found.dataset.attrs["step_hours"])
    if steps != context.step_hours:
        raise ConfigurationError(
            f"{found.path} is of values every {steps} h, the forecast has steps of "
            f"{context.step_hours} h",
            "the same: maxima and means of a day depend on it",
            f"make it with --step-hours {context.step_hours}",
        )
    return found


def like(values: Float, forecast: xr.Dataset) -> Float:
    """Fields (..., latitude, longitude) of a climatology, in the order of the forecast's points."""
    rows, columns = (np.argsort(np.argsort(forecast[k].values)) for k in (LATITUDE, LONGITUDE))
    return values[..., rows[:, None], columns]


@dataclass(frozen=True)
class Recipe:
    """How a climatology is made.

    Attributes:
        fields: name -> statistic of a day, `mean` or `maximum`.
        step_hours: hours between the values of a day; those of the forecast.
        every_days: days between the days of the year of a planet with seasons; None for one
            without, of which every day counts.
        around_days: days before and after each that count for it.
    """

    fields: Mapping[str, str]
    step_hours: int
    probabilities: Sequence[float] = PROBABILITIES
    every_days: int | None = None
    around_days: int = 15


def make(archive: xr.Dataset, recipe: Recipe) -> xr.Dataset:
    """The climatology of an archive with `time, [level,] latitude, longitude`.

    Raises:
        ConfigurationError: the steps do not divide a day, or are not in the archive.
        AnalysisMissing: no whole day (of one of the seasons).
    """
    archive = ascending(archive)
    days = _days(archive["time"].values, recipe.step_hours)
    first = archive["time"].values[days[:, 0]]
    centres: list[float | None] = [None]
    if recipe.every_days is not None:
        centres = list(np.arange(1.0, 366.0, recipe.every_days))
    variables: dict[str, Any] = {}
    for name, statistic in recipe.fields.items():
        parts = [_one(archive, name, statistic, days[_near(first, c, recipe)], recipe, c)
                 for c in centres]  # fmt: skip
        quantiles, means = (np.stack(kind, axis=-3) for kind in zip(*parts, strict=True))
        space = (DAY, LATITUDE, LONGITUDE)
        attributes = {"units": units_of(name), "statistic": statistic}
        long_name = f"of the {statistic} of a day of {name.replace('_', ' ')}"
        quantile = {**attributes, "long_name": f"climatological quantile {long_name}"}
        mean = {**attributes, "long_name": f"climatological mean {long_name}"}
        variables[name] = ((QUANTILE, *space), quantiles, quantile)
        variables[f"{name}_mean"] = (space, means, mean)
    coordinates = {
        QUANTILE: np.array(recipe.probabilities),
        DAY: [0.0 if c is None else c for c in centres],
        LATITUDE: archive[LATITUDE].values,
        LONGITUDE: archive[LONGITUDE].values,
    }
    given = {k: str(archive.attrs[k]) for k in ("planet", "model", "source") if k in archive.attrs}
    period = f"{str(first[0])[:10]}/{str(first[-1])[:10]}"
    about = {"format": FORMAT, "step_hours": recipe.step_hours, "period": period, **given}
    made = xr.Dataset(variables, coordinates, {**about, "days": len(days)})
    return made if recipe.every_days else made.isel({DAY: 0}, drop=True)


def _days(times: NDArray[np.datetime64], step_hours: int) -> NDArray[np.intp]:
    """Positions of the times of every whole day (00, 24] at the given steps: (day, step)."""
    if DAY_HOURS % step_hours:
        raise ConfigurationError(f"steps of {step_hours} h", "steps that divide a day")
    hours = times.astype("datetime64[h]").astype(np.int64)
    at = np.flatnonzero(hours % step_hours == 0)
    number = (hours[at] - 1) // DAY_HOURS
    days, start, count = np.unique(number, return_index=True, return_counts=True)
    whole = start[count == DAY_HOURS // step_hours]
    if not whole.size:
        raise AnalysisMissing(
            f"{days.size} days of the archive, none with a value every {step_hours} h",
            "whole days",
            "take longer steps, or a fuller archive",
        )
    return np.asarray(at[whole[:, None] + np.arange(DAY_HOURS // step_hours)])


def _near(first: NDArray[np.datetime64], centre: float | None, recipe: Recipe) -> Any:
    if centre is None:
        return slice(None)
    day = 1 + (first - first.astype("datetime64[Y]")) / np.timedelta64(1, "D")
    apart = np.abs((day - centre + _YEAR / 2) % _YEAR - _YEAR / 2)
    return apart <= recipe.around_days


def _one(
    archive: xr.Dataset,
    name: str,
    statistic: str,
    days: NDArray[np.intp],
    recipe: Recipe,
    centre: float | None,
) -> tuple[Float, Float]:
    """Quantiles (quantile, latitude, longitude) and mean of one field and season."""
    if len(days) < 2:
        raise AnalysisMissing(
            f"{len(days)} whole days around day {centre} of the year",
            "2 or more, best some hundreds",
        )
    parts = [_read(archive, channel, days) for channel in channels_of(name)]
    values = parts[0] if len(parts) == 1 else np.hypot(*parts)
    daily = values.mean(axis=1) if statistic == "mean" else values.max(axis=1)
    quantiles = np.quantile(daily, recipe.probabilities, axis=0)
    return quantiles.astype(np.float32), daily.mean(axis=0, dtype=np.float64).astype(np.float32)


def _read(archive: xr.Dataset, name: str, days: NDArray[np.intp]) -> Float:
    """(day, step, latitude, longitude), finite."""
    channel = Channel.parse(name)
    if channel.variable not in archive:
        raise AnalysisMissing(f"the archive has no {name}", "it, or --fields without it")
    array = archive[channel.variable]
    if channel.level is not None:
        array = array.sel({LEVEL: channel.level})
    array = array.transpose("time", LATITUDE, LONGITUDE)
    low, high = int(days.min()), int(days.max()) + 1
    values = np.asarray(array[low:high].values, np.float32)[days - low]
    if not np.isfinite(values).all():
        raise AnalysisUnreadable(f"{name} of the archive holds NaN or infinity", "finite values")
    return values


def write(climatology: xr.Dataset, path: Path) -> None:
    """Write it packed: steps of a 64th of a field's typical deviation over the days."""
    encoding = {}
    for name, array in climatology.data_vars.items():
        field = climatology[str(name).removesuffix("_mean")]
        spread = float((field.sel({QUANTILE: 0.9}) - field.sel({QUANTILE: 0.1})).mean() / 2.56)
        step = spread / _FINENESS if spread > 0 else 1.0
        offset = float(array.mean())
        dtype = np.int16 if float(np.abs(array - offset).max()) / step < 2**15 - 2 else np.int32
        encoding[str(name)] = {
            "dtype": np.dtype(dtype).name, "scale_factor": step, "add_offset": offset,
            "_FillValue": np.iinfo(dtype).min, "zlib": True, "shuffle": True, "complevel": 9,
        }  # fmt: skip
    climatology.to_netcdf(path, engine="netcdf4", encoding=encoding)


def _fields(texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, _, statistic = text.partition(":")
        channels_of(name)
        if statistic not in ("mean", "maximum"):
            raise ConfigurationError(f"--fields {text}", "NAME:mean or NAME:maximum")
        yield name, statistic


def main() -> None:
    parser = argparse.ArgumentParser(description="Quantiles of the climate, of an archive.")
    parser.add_argument("archive", help="Zarr archive of analyses")
    parser.add_argument("--output", type=Path, required=True, help="a netCDF file")
    parser.add_argument("--step-hours", type=int, required=True, help="those of the forecasts")
    parser.add_argument("--fields", nargs="+", metavar="NAME:STATISTIC",
                        default=[f"{k}:{v}" for k, v in FIELDS.items()])  # fmt: skip
    parser.add_argument("--every-days", type=int, help="for a planet with seasons, such as 10")
    parser.add_argument("--around-days", type=int, default=15)
    given = parser.parse_args()
    recipe = Recipe(
        dict(_fields(given.fields)),
        given.step_hours,
        every_days=given.every_days,
        around_days=given.around_days,
    )
    made = make(xr.open_zarr(given.archive, chunks=None), recipe)
    write(made, given.output)
    size = given.output.stat().st_size / 1000
    sys.stderr.write(f"{given.output}: {made.attrs['days']} days, {size:.0f} kB\n")


if __name__ == "__main__":
    main()
