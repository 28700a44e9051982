"""`spectra.zarr`: kinetic-energy and variance spectra of members, mean and initial analysis."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import xarray as xr

from mosaic_core.products.checks import finite
from mosaic_core.products.output import Cube, ProductError
from mosaic_core.products.product import Product, ProductContext, lead_hours, register
from mosaic_core.products.spectra import spectra


@dataclass(frozen=True)
class SpectraSettings:
    """The kind `spectra` has no settings."""


def make(product_id: str, settings: SpectraSettings) -> Product:
    """The product; it needs the initial analysis to compare with."""

    def build(forecast: xr.Dataset, context: ProductContext) -> Iterator[Cube]:
        made = spectra(forecast, initial_analysis(context))
        title = "Spectra of members, ensemble mean and analysis by total wavenumber"
        yield Cube.of(f"{product_id}.zarr", made, lead_hours=lead_hours(forecast), title=title)

    return Product(
        product_id, needs=(), build=build, attributes={"title": "Power spectra"}, checks=(finite,)
    )


register("spectra", SpectraSettings, make)


def initial_analysis(context: ProductContext) -> xr.Dataset:
    """The analysis that the forecast started from; raises ProductError where none was given."""
    if context.analysis is None:
        raise ProductError(
            "no initial analysis was given",
            "the analysis that the forecast started from",
            "give `analysis` in the context of the products",
        )
    return context.analysis
