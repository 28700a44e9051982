"""What came true: the analyses of a site or of an archive, or a simulated atmosphere itself."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Protocol

import xarray as xr

from mosaic_core import dims
from mosaic_core.analysis.regrid import regrid_dataset
from mosaic_core.analysis.sources.zarr_archive import ZarrSettings, ZarrSource
from mosaic_core.analysis.store import COMMIT, analysis_key, read_analysis
from mosaic_core.channels import Channel, Channels
from mosaic_core.errors import AnalysisMissing, ConfigurationError
from mosaic_core.pipeline.site import Site
from mosaic_core.publication import layout
from mosaic_core.verification.settings import VerificationSettings


class Truth(Protocol):
    """What forecasts are verified against."""

    @property
    def name(self) -> str:
        """As it stands in the catalog and in keys."""

    @property
    def forward(self) -> bool:
        """Whether it is best asked from the earliest time on."""

    @property
    def gaps(self) -> bool:
        """Whether points may be missing (NaN); otherwise one that is makes it refused."""

    def has(self, valid_time: datetime) -> bool:
        """Whether it is known at that time."""

    def at(self, valid_time: datetime) -> xr.Dataset:
        """[level,] latitude, longitude on the model's grid."""


class StoredAnalyses:
    """The analyses that a site has ingested."""

    forward = False
    gaps = False

    def __init__(self, site: Site) -> None:
        self._site = site

    @property
    def name(self) -> str:
        return self._site.source.name

    def has(self, valid_time: datetime) -> bool:
        return self._site.store.exists(f"{analysis_key(self.name, valid_time)}/{COMMIT}")

    def at(self, valid_time: datetime) -> xr.Dataset:
        """Raises AnalysisMissing when it is not stored, IntegrityError when it is damaged."""
        config = self._site.config
        found = read_analysis(
            self._site.store, self.name, valid_time, config.channel_set, config.lat_lon
        )
        if found is None:
            raise AnalysisMissing(f"no analysis of {valid_time:%Y-%m-%dT%HZ} is stored")
        return found.isel({dims.VALID_TIME: 0})


class SimulatedTruth:
    """The simulated atmosphere without analysis error, whose future is known too.

    Raises:
        ConfigurationError: the site's source does not simulate.
    """

    forward = True  # it is integrated
    gaps = False

    def __init__(self, site: Site) -> None:
        if not hasattr(site.source, "truth"):
            raise ConfigurationError(
                f"the source {site.source.name} has no truth beside its analyses",
                "a simulated source",
                "verify against the analyses",
            )
        self._site = site

    @property
    def name(self) -> str:
        return f"{self._site.source.name}-truth"

    def has(self, valid_time: datetime) -> bool:
        return True

    def at(self, valid_time: datetime) -> xr.Dataset:
        """Regridded as analyses are, where the simulation is on another grid."""
        config, source = self._site.config, self._site.source
        truth: Any = source
        fields: xr.Dataset = truth.truth(config.channel_set, [valid_time])
        on_grid = regrid_dataset(fields, config.lat_lon, finer=self._site.profile.finer_grid)
        return on_grid.isel({dims.VALID_TIME: 0})


class ArchivedAnalyses:
    """Analyses in a Zarr store in WeatherBench layout, as the source `zarr` reads them.

    Another grid is brought to the site's as analyses that are ingested are.

    Args:
        url: a folder, `s3://`, `https://` or `gs://` (anonymous).
        name: as it is to stand in the catalog and in keys, such as `era5`.
        settings: what is verified, of which the channels are read.

    Raises:
        ConfigurationError: the name is that of another truth here, or cannot stand in a key.
    """

    forward = False
    gaps = False

    def __init__(self, site: Site, url: str, name: str, settings: VerificationSettings) -> None:
        layout.variant_prefix(name)
        own = site.source.name
        if name in (own, f"{own}-truth"):
            raise ConfigurationError(f"a truth named {name}, as one made here", "another name")
        self._site, self.name = site, name
        self._channels = _verified(settings, site.config.channel_set)
        self._source = ZarrSource(ZarrSettings(url=url, name=name))

    def has(self, valid_time: datetime) -> bool:
        """Raises AnalysisUnreadable where there is no such store."""
        try:
            self._source.index(valid_time)
        except AnalysisMissing:
            return False
        return True

    def at(self, valid_time: datetime) -> xr.Dataset:
        """Raises AnalysisMissing for a channel that is not there, AnalysisUnreadable for damage."""
        fields = self._source.fetch(self._channels, [valid_time])
        grid, finer = self._site.config.lat_lon, self._site.profile.finer_grid
        return regrid_dataset(fields, grid, finer=finer).isel({dims.VALID_TIME: 0})


def _verified(settings: VerificationSettings, channels: Channels) -> Channels:
    """Channels of a model that have scores, or of which spectra or events are made."""
    parts: list[Iterable[Channel]] = [settings.of(channels), *settings.winds(channels).values()]
    parts += [event.channels for event in settings.events_of(channels)]
    return Channels(tuple(dict.fromkeys(channel for part in parts for channel in part)))
