r"""docs/figures/gallery_*.png: a picture of each kind of product, from the site the demo leaves.

mosaic demo --cycles 2 -s "products=[statistics,probabilities,extremes,spectra,spectra_maps,\
probability_maps,maps,stamps,meteograms]"
python -m benchmarks.gallery [CYCLE]

Pictures that the site has published are taken as they are, in fewer colours; that of an index of
extremes, which is published as numbers, is drawn here.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from PIL import Image

from mosaic_core.cycle import Cycle
from mosaic_core.dims import LATITUDE, LEAD_TIME, LONGITUDE
from mosaic_core.pipeline.scoreboard import SCORECARD, SPECTRA
from mosaic_core.pipeline.site import Site, open_site
from mosaic_core.products import canvas, colours, page
from mosaic_core.products.product import ProductContext
from mosaic_core.products.projections import VIEWS
from mosaic_core.profile import Profile
from mosaic_core.publication import client
from mosaic_core.publication.manifest import Manifest

FIGURES: Final = Path(__file__).parent.parent / "docs" / "figures"
TAKEN: Final = {
    "mean": "maps/geopotential_500_mean_072h.png",
    "spread": "maps/geopotential_500_spread_072h.png",
    "stamps": "maps/stamps_mean_sea_level_pressure_120h.png",
    "meteogram": "meteograms/reading.png",
    "probability": "maps/probability_10m_wind_above_15_within_24_h_072h.png",
    "energy": "maps/spectra_120h.png",
}
"""Name in the gallery -> name in the folder of a forecast."""

SCORES: Final = {"scorecard": SCORECARD, "spectra": SPECTRA}
EFI: Final = "2m_temperature_efi"
EFI_LEVELS: Final = (-1.0, -0.8, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def extremes(site: Site, manifest: Manifest) -> bytes:
    """A map of the index of the third day."""
    index = client.open_forecast(site.store.url(), manifest.cycle, product="extremes")[EFI]
    day = index.isel({LEAD_TIME: 2}).transpose(LATITUDE, LONGITUDE)
    lat, lon = (day[dim].values.astype(float) for dim in (LATITUDE, LONGITUDE))
    plane = canvas.Plane(VIEWS["globe"], lon, lat)
    hours = float(day[LEAD_TIME].values / np.timedelta64(1, "h"))

    def paint(axes: Axes) -> object:
        norm = colours.banded(EFI_LEVELS, "neither")
        return plane.shade(axes, day.values, norm=norm, cmap=colours.palette("warmth"))

    legend = "Colours: -1 all members below the climate of the day, 1 all above it"
    title = "2 m temperature of a day, Extreme Forecast Index"
    words = page.Words(title, hours, "", legend, hours - 24)
    return page.one_map(plane, context_of(site, manifest), words, EFI_LEVELS, paint)


def context_of(site: Site, manifest: Manifest) -> ProductContext:
    """What stands around a map of this forecast."""
    planes = site.static[..., site.config.static.index("land_sea_mask")]
    land = xr.Dataset(
        {"land_sea_mask": ((LONGITUDE, LATITUDE), planes)},
        {LATITUDE: list(site.config.lat_lon.latitudes),
         LONGITUDE: list(site.config.lat_lon.longitudes)},
    )  # fmt: skip
    return ProductContext(
        cycle=manifest.cycle,
        variant=manifest.variant,
        model=f"Mosaic {site.model.version.text}",
        members=manifest.ensemble.members,
        step_hours=manifest.ensemble.step_hours,
        trained=site.model.version.trained,
        licence=manifest.licence,
        attribution=site.model.version.attribution,
        static=land,
    )


def in_fewer_colours(png: bytes) -> bytes:
    """The picture with a palette of 256 colours, a third of the bytes."""
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def main() -> None:
    site = open_site(Profile.load("demo"))
    cycle = Cycle.parse(sys.argv[1]) if sys.argv[1:] else None
    manifest = client.manifest(site.store.url(), cycle)
    pictures = {name: site.store.get(f"{manifest.prefix}/{key}") for name, key in TAKEN.items()}
    pictures["extremes"] = extremes(site, manifest)
    scores = {info.key.rsplit("/", 1)[-1]: info.key for info in site.store.list("verification")}
    pictures |= {name: site.store.get(scores[file]) for name, file in SCORES.items()}
    for name, png in pictures.items():
        path = FIGURES / f"gallery_{name}.png"
        path.write_bytes(in_fewer_colours(png))
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
