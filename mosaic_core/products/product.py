"""The product seam: what a product is, how it is configured, and how a forecast's are made.

A product is one small module: settings (a frozen dataclass), a `build` that yields files and
cubes, and a `register` call. `config/products.yaml` names products and gives their settings.
"""

from __future__ import annotations

import difflib
import importlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import xarray as xr

from mosaic_core.channels import Channel
from mosaic_core.cycle import Cycle
from mosaic_core.dims import LATITUDE, LEAD_TIME, LEVEL, LONGITUDE, NUMBER
from mosaic_core.errors import ConfigurationError, MosaicError, StoreError
from mosaic_core.products.checks import Check, plausible
from mosaic_core.products.output import Output, ProductError
from mosaic_core.products.writing import Asset, write
from mosaic_core.settings import build, read_config
from mosaic_core.storage import ObjectStore
from mosaic_core.threads import one_thread

UNTRAINED: Final = "Untrained weights: not a forecast"


@dataclass(frozen=True)
class ProductContext:
    """What a product knows of the forecast besides its fields.

    Attributes:
        model: name and version in words, as titles show it.
        members: how many the forecast should hold.
        step_hours: hours between lead times.
        trained: False for weights that were never trained: maps carry a banner, and plausible
            ranges are not required.
        quality: further flags in plain words, such as "Degraded input".
        static: fixed fields of a planet that is not the Earth, on the forecast's grid; maps draw
            its coast from `land_sea_mask`.
        analysis: the analyses that the forecast started from (dims of an analysis dataset).
    """

    cycle: Cycle
    variant: str
    model: str
    members: int
    step_hours: int
    trained: bool = True
    quality: tuple[str, ...] = ()
    licence: str = ""
    attribution: str = ""
    static: xr.Dataset | None = None
    analysis: xr.Dataset | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """Every quality flag in plain words, the gravest first."""
        return self.quality if self.trained else (UNTRAINED, *self.quality)

    @property
    def land(self) -> xr.DataArray | None:
        """Land-sea mask of a planet that is not the Earth."""
        if self.static is None or "land_sea_mask" not in self.static:
            return None
        return self.static["land_sea_mask"]

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of every data set made of this forecast."""
        given = {
            "Conventions": "CF-1.11",
            "source": f"{self.model} ({self.variant})",
            "forecast_reference_time": self.cycle.init_time.isoformat(),
            "quality": "; ".join(self.flags) or "no flag",
            "license": self.licence,
            "attribution": self.attribution,
        }
        return {key: value for key, value in given.items() if value}


@dataclass(frozen=True)
class Product:
    """One product of a forecast.

    Attributes:
        id: its name in `config/products.yaml`.
        needs: channels (`geopotential_500`, `2m_temperature`), or a variable for whatever levels
            there are (`geopotential`). Without them the product is not made, and says so.
        build: takes the forecast (dims `number, lead_time, [level,] latitude, longitude`, opened
            lazily) and the context; yields files and cubes.
        attributes: global attributes of its data sets (`title`, ...).
        checks: run on every part before it is written.
        notes: takes the forecast and context; says in words what `build` will leave out or
            replace, and why.
    """

    id: str
    needs: tuple[str, ...]
    build: Callable[[xr.Dataset, ProductContext], Iterable[Output]]
    attributes: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    notes: Callable[[xr.Dataset, ProductContext], Sequence[str]] = lambda forecast, context: ()


@dataclass(frozen=True)
class BuiltProduct:
    """A product whose every part passed its checks and is in the store."""

    id: str
    assets: tuple[Asset, ...]
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class ProductFailure:
    """A product that is not there, and why; nothing of it is left in the store.

    `kind` is `skipped` (the forecast lacks what it needs: `missing` names it) or `failed`.
    """

    id: str
    kind: Literal["skipped", "failed"]
    reason: str
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of product: its settings' class and how a product is made of an id and settings."""

    settings: type[Any]
    make: Callable[[str, Any], Product]


# Kinds that come with the package: name in the configuration -> module of this folder.
_MODULES: Final = {
    "statistics": "statistics",
    "probabilities": "probabilities",
    "probability_maps": "probability_maps",
    "extremes": "extremes",
    "tracks": "tracks",
    "grib": "grib",
    "grib_probabilities": "grib_probabilities",
    "meteograms": "meteograms",
    "maps": "maps",
    "stamps": "stamps",
    "spectra": "spectra_product",
    "spectra_maps": "spectra_maps",
}
_KINDS: dict[str, Kind] = {}


def register(name: str, settings: type[Any], make: Callable[[str, Any], Product]) -> None:
    """Make the kind `name` known; called by the module that defines it when it is imported."""
    _KINDS[name] = Kind(settings, make)


def load_products(config: Sequence[str] | Mapping[str, Any]) -> list[Product]:
    """Products from settings.

    Args:
        config: names of products in `config/products.yaml`, or a mapping like that file's:
            product id -> settings, where `kind` (by default the id) names what it is.

    Raises:
        ConfigurationError: an unknown product, kind or key (the nearest known one is given).
    """
    if isinstance(config, Mapping):
        return [_product(str(key), value, "products") for key, value in config.items()]
    if isinstance(config, str):
        raise ConfigurationError(f"products: {config!r}", "a list of names")
    known, path = read_config("", "products")
    for name in config:
        if name not in known:
            raise _unknown("product", name, known, str(path))
    return [_product(name, known[name], str(path)) for name in config]


def _product(product_id: str, settings: object, where: str) -> Product:
    if settings is None:
        settings = {}
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"{where}: {product_id}: {settings!r}", "keys and values")
    name = settings.get("kind", product_id)
    if name not in _KINDS and name in _MODULES:
        importlib.import_module(f"mosaic_core.products.{_MODULES[name]}")
    if name not in _KINDS:
        raise _unknown("kind of product", str(name), {*_MODULES, *_KINDS}, where)
    rest = {key: value for key, value in settings.items() if key != "kind"}
    kind = _KINDS[name]
    return kind.make(product_id, build(kind.settings, rest, f"{where}: {product_id}"))


def _unknown(what: str, name: str, known: Iterable[str], where: str) -> ConfigurationError:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return ConfigurationError(
        f"{where}: unknown {what} {name!r}",
        f"one of {', '.join(sorted(known))}",
        f"did you mean {near[0]!r}?" if near else "",
    )


def build_products(
    products: Sequence[Product],
    forecast: xr.Dataset,
    context: ProductContext,
    store: ObjectStore,
    prefix: str,
) -> list[BuiltProduct | ProductFailure]:
    """Make, check and write every product below `prefix`; one result each, in order.

    What goes wrong with one product is in its result and does not hold back the others.

    Raises:
        ConfigurationError: two products of one id.
        StoreError: the store refuses or is full; nothing of the product that met it is left.
    """
    ids = [product.id for product in products]
    if len(set(ids)) != len(ids):
        raise ConfigurationError(f"products {', '.join(ids)}", "each id once")
    with one_thread():
        return [_build_one(product, forecast, context, store, prefix) for product in products]


def _build_one(
    product: Product, forecast: xr.Dataset, context: ProductContext, store: ObjectStore, prefix: str
) -> BuiltProduct | ProductFailure:
    began = time.monotonic()
    missing = missing_channels(forecast, product.needs)
    if missing:
        there = ", ".join(describe(forecast)) or "no variables"
        return ProductFailure(
            product.id,
            "skipped",
            f"the forecast does not hold {', '.join(missing)}; it holds {there}",
            missing,
        )
    assets: list[Asset] = []
    started: list[str] = []
    try:
        _refuse_other_forecast(forecast, context)
        notes = list(product.notes(forecast, context))
        checks = product.checks
        if not context.trained and plausible in checks:
            checks = tuple(check for check in checks if check is not plausible)
            notes.append("plausible ranges were not required: the weights are untrained")
        attributes = {**context.attributes, **product.attributes}
        for output in product.build(forecast, context):
            started.append(f"{prefix}/{output.name}" if prefix else output.name)
            assets.append(write(output, checks, store, prefix, attributes))
        if not assets:
            raise ProductError(f"product {product.id} made nothing", "at least one file")
    except StoreError:  # not this product's fault, and the others would fare no better
        _remove(started, store)
        raise
    except Exception as error:  # one product must not hold back the others
        named = "" if isinstance(error, MosaicError) else f"{type(error).__name__}: "
        reason = f"{named}{error}{_remove(started, store)}"
        return ProductFailure(product.id, "failed", reason)
    return BuiltProduct(product.id, tuple(assets), tuple(notes), time.monotonic() - began)


def _remove(keys: Iterable[str], store: ObjectStore) -> str:
    """Take away what a failed product has written; returns words for what could not be."""
    left = []
    for key in keys:
        try:
            store.delete_all(key)
            store.delete(key)
        except StoreError as error:
            left.append(f"; {key} could not be removed ({error})")
    return "".join(left)


def _refuse_other_forecast(forecast: xr.Dataset, context: ProductContext) -> None:
    for dim in (NUMBER, LEAD_TIME, LATITUDE, LONGITUDE):
        if dim not in forecast.dims or dim not in forecast.coords:
            raise ProductError(
                f"the forecast has dimensions {tuple(forecast.dims)}",
                f"a dimension and coordinate {dim!r}",
            )
    if forecast.sizes[NUMBER] != context.members:
        raise ProductError(
            f"the forecast holds {forecast.sizes[NUMBER]} members",
            f"the {context.members} that its context states",
            "finish the forecast, or state the members that there are and flag it",
        )
    if "init_time" in forecast.coords:
        stated = np.datetime64(context.cycle.init_time.replace(tzinfo=None), "ns")
        if forecast["init_time"].values.astype("datetime64[ns]") != stated:
            raise ProductError(
                f"the forecast starts at {forecast['init_time'].values}",
                f"the cycle {context.cycle}",
                "open the forecast of this cycle",
            )


def missing_channels(forecast: xr.Dataset, needs: Iterable[str]) -> tuple[str, ...]:
    """Those of `needs` that the forecast lacks, in order."""
    return tuple(need for need in needs if not _holds(forecast, need))


def _holds(forecast: xr.Dataset, need: str) -> bool:
    if need in forecast.data_vars:
        return True
    try:
        channel = Channel.parse(need)
    except ConfigurationError:
        return False
    if channel.level is None or channel.variable not in forecast.data_vars:
        return False
    levels = forecast[channel.variable].coords.get(LEVEL)
    return levels is not None and channel.level in np.atleast_1d(levels.values)


def describe(forecast: xr.Dataset) -> list[str]:
    """Variables of the forecast in words, with their levels."""
    words = []
    for name, variable in forecast.data_vars.items():
        if LEVEL in variable.dims:
            levels = ", ".join(f"{level:g}" for level in variable[LEVEL].values)
            words.append(f"{name} at {levels} hPa")
        else:
            words.append(str(name))
    return words


def field_of(forecast: xr.Dataset, name: str) -> xr.DataArray:
    """The channel `name`, without the dimension `level`.

    Raises:
        ProductError: the forecast does not hold it.
    """
    if missing_channels(forecast, [name]):
        raise ProductError(
            f"the forecast does not hold {name}", ", ".join(describe(forecast)), "see `needs`"
        )
    if name in forecast.data_vars:
        return forecast[name]
    channel = Channel.parse(name)
    return forecast[channel.variable].sel({LEVEL: channel.level}, drop=True)


def lead_hours(forecast: xr.Dataset) -> tuple[float, ...]:
    """Lead times of the forecast in hours."""
    hours = forecast[LEAD_TIME].values.astype("timedelta64[s]").astype(np.int64) / 3600
    return tuple(float(hour) for hour in hours)
