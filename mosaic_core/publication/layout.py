"""Where things lie below the root of an object store: the only place that spells a key.

    analyses/v1/<source>/YYYY/MM/DD/YYYYMMDDTHHZ.zarr
    forecasts/v1/<variant>/YYYY/MM/DD/HHZ[.rN]/...
    forecasts/v1/<variant>/{latest,in-progress}.json

Revision 1 of a forecast has no suffix; a re-run with another content is `.r2`, `.r3`, ...
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError

ANALYSES: Final = "analyses/v1"
FORECASTS: Final = "forecasts/v1"
VERIFICATION: Final = "verification/v1"
MANIFEST: Final = "manifest.json"
REMOVED: Final = "removed.json"
CHECKSUMS: Final = ".sha256"

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_FORECAST = re.compile(
    rf"{FORECASTS}/(?P<variant>{_NAME.pattern})"
    r"/(?P<year>\d{4})/(?P<month>\d{2})/(?P<day>\d{2})/(?P<hour>\d{2})Z"
    r"(?:\.r(?P<revision>[2-9]|[1-9]\d+))?"
)


class ForecastId(NamedTuple):
    """What one forecast folder holds; ordered by cycle, then revision, within a variant."""

    variant: str
    cycle: Cycle
    revision: int


def analysis_key(source: str, cycle: Cycle) -> str:
    """Prefix of the Zarr of one checked analysis on the model grid."""
    return f"{ANALYSES}/{_checked(source)}/{_day(cycle)}/{cycle.id}.zarr"


def variant_prefix(variant: str) -> str:
    """Folder of all forecasts of a variant."""
    return f"{FORECASTS}/{_checked(variant)}"


def forecast_prefix(variant: str, cycle: Cycle, revision: int = 1) -> str:
    """Folder of one forecast."""
    if revision < 1:
        raise ConfigurationError(f"revision {revision}", "1 or more")
    suffix = "" if revision == 1 else f".r{revision}"
    return f"{variant_prefix(variant)}/{_day(cycle)}/{cycle.init_time:%H}Z{suffix}"


def parse_forecast_prefix(prefix: str) -> ForecastId:
    """The inverse of `forecast_prefix`.

    Raises:
        ConfigurationError: it is not the folder of a forecast.
    """
    match = _FORECAST.fullmatch(prefix.rstrip("/"))
    try:
        if match is None:
            raise ValueError("another form")
        year, month, day, hour = (int(match[p]) for p in ("year", "month", "day", "hour"))
        time = datetime(year, month, day, hour, tzinfo=UTC)
        return ForecastId(match["variant"], Cycle(time), int(match["revision"] or 1))
    except (ValueError, ConfigurationError) as error:
        raise ConfigurationError(
            f"{prefix!r} is not the folder of a forecast",
            f"{FORECASTS}/<variant>/YYYY/MM/DD/HHZ or HHZ.rN",
        ) from error


def manifest_key(variant: str, cycle: Cycle, revision: int = 1) -> str:
    return f"{forecast_prefix(variant, cycle, revision)}/{MANIFEST}"


def latest_key(variant: str) -> str:
    return f"{variant_prefix(variant)}/latest.json"


def in_progress_key(variant: str) -> str:
    return f"{variant_prefix(variant)}/in-progress.json"


def verification_prefix(variant: str) -> str:
    return f"{VERIFICATION}/{_checked(variant)}"


def _day(cycle: Cycle) -> str:
    time = cycle.init_time
    return f"{time.year:04d}/{time:%m/%d}"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} cannot name a variant or source",
            "small letters and digits, with . _ - between them",
        )
    return name
