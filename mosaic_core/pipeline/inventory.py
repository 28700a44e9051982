"""What lies in the store of a site: folders of forecasts and stored analyses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from mosaic_core.analysis.store import ROOT as ANALYSES
from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError
from mosaic_core.pipeline.site import Site
from mosaic_core.publication import layout
from mosaic_core.publication.layout import ForecastId
from mosaic_core.storage import ObjectStore


def forecasts(site: Site, since: Cycle | None = None) -> Iterator[ForecastId]:
    """Every folder of a forecast of this site's variant, published or not, newest first."""
    for day in _days(site.store, layout.variant_prefix(site.config.name), since):
        found = []
        for name in site.store.folders(day):
            try:
                found.append(layout.parse_forecast_prefix(f"{day}/{name}"))
            except ConfigurationError:
                continue
        for one in sorted(found, reverse=True):
            if since is None or one.cycle >= since:
                yield one


def analyses(site: Site) -> Iterator[tuple[datetime, str]]:
    """Valid time (UTC) and key of every stored analysis of this site's source, newest first."""
    for day in _days(site.store, f"{ANALYSES}/{site.source.name}", None):
        for name in reversed(site.store.folders(day)):
            try:
                valid = datetime.strptime(name, "%Y%m%dT%HZ.zarr").replace(tzinfo=UTC)
                Cycle(valid)
            except (ValueError, ConfigurationError):
                continue
            yield valid, f"{day}/{name}"


def _days(store: ObjectStore, root: str, since: Cycle | None) -> Iterator[str]:
    """Folders `root/YYYY/MM/DD`, newest first."""
    first = f"{root}/{since.init_time:%Y/%m/%d}" if since is not None else ""
    for year in _numbers(store, root):
        for month in _numbers(store, year):
            for day in _numbers(store, month):
                if day < first:
                    return
                yield day


def _numbers(store: ObjectStore, prefix: str) -> list[str]:
    return [f"{prefix}/{name}" for name in reversed(store.folders(prefix)) if name.isdigit()]
