"""For consumers: find, open, fetch and verify published forecasts.

Every `url` is the root of a store: a folder, `s3://bucket/prefix` or `https://...`. Where it
holds one variant, `variant` may be left out (a web server cannot be asked: name it).

    forecast = open_forecast("s3://bucket/prefix", product="statistics")
    forecast["2m_temperature"].sel(latitude=48, longitude=11, method="nearest")
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError, IntegrityError, PublicationError
from mosaic_core.publication import checksums, layout
from mosaic_core.publication.latest import (
    Latest,
    published_revision,
    read_latest,
    read_manifest,
)
from mosaic_core.publication.manifest import Asset, Manifest
from mosaic_core.publication.removal import read_removed
from mosaic_core.storage import ObjectMissing, ObjectStore, open_store

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found; keys are relative to the forecast's folder."""

    url: str
    objects: int
    bytes: int
    missing: tuple[str, ...]
    altered: tuple[str, ...]
    extra: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not (self.missing or self.altered or self.extra)

    def __str__(self) -> str:
        if self.ok:
            return f"{self.url}: {self.objects} objects, {self.bytes} bytes, all as published"
        parts = [
            f"{kind}: {', '.join(keys)}"
            for kind, keys in (
                ("missing", self.missing),
                ("altered", self.altered),
                ("extra", self.extra),
            )
            if keys
        ]
        return f"{self.url}: {'; '.join(parts)}"


def variants(url: str | Path) -> tuple[str, ...]:
    """Variants that have forecasts in a store."""
    return open_store(url, create=False).folders(layout.FORECASTS)


def latest(url: str | Path, variant: str | None = None) -> Latest:
    """The newest published forecast.

    Raises:
        PublicationError: nothing is published there.
    """
    store = open_store(url, create=False)
    return _latest(store, _variant(store, variant))


def manifest(
    url: str | Path, cycle: Cycle | str | None = None, variant: str | None = None
) -> Manifest:
    """The manifest of a cycle (of its newest revision), or of the newest cycle."""
    store = open_store(url, create=False)
    return _manifest(store, _variant(store, variant), cycle)


def list_forecasts(url: str | Path, variant: str | None = None) -> tuple[Manifest, ...]:
    """Manifests of every published forecast, oldest first."""
    store = open_store(url, create=False)
    names = store.folders(layout.FORECASTS) if variant is None else (variant,)
    found = []
    for name in names:
        for info in store.list(layout.variant_prefix(name)):
            folder, _, file = info.key.rpartition("/")
            if file != layout.MANIFEST:
                continue
            try:
                identity = layout.parse_forecast_prefix(folder)
            except ConfigurationError:
                continue
            entry = read_manifest(store, *identity)
            if entry is not None:
                found.append(entry)
    return tuple(sorted(found, key=lambda m: (m.cycle, m.variant, m.revision)))


def open_forecast(
    url: str | Path,
    cycle: Cycle | str | None = None,
    product: str = "statistics",
    variant: str | None = None,
) -> xr.Dataset:
    """Open a Zarr product lazily.

    Args:
        cycle: such as `2026-11-20T00Z`; None for the newest.
        product: name of the product, or the key of one asset.

    Raises:
        PublicationError: the cycle or the product is not published.
    """
    import xarray as xr

    store = open_store(url, create=False)
    found = _manifest(store, _variant(store, variant), cycle)
    asset = found.asset(product)
    _refuse_removed(store, found, asset)
    if not asset.is_zarr:
        raise PublicationError(
            f"{asset.key} is {asset.media_type}", "a Zarr", "fetch it: `mosaic products get`"
        )
    zarr = store.zarr(f"{found.prefix}/{asset.key}", read_only=True)
    dataset: xr.Dataset = xr.open_zarr(zarr, consolidated=True)
    return dataset


def get(
    url: str | Path,
    cycle: Cycle | str | None,
    product: str,
    destination: str | Path,
    variant: str | None = None,
) -> tuple[Path, ...]:
    """Copy the files of a product (every one, or the one whose key is given) into a folder.

    What arrives is checked against the manifest; a file appears only when it is whole.

    Returns:
        The files written, in the places that they have in the forecast's folder.

    Raises:
        IntegrityError: an object is not what was published.
    """
    store = open_store(url, create=False)
    found = _manifest(store, _variant(store, variant), cycle)
    assets = [a for a in found.assets if product in (a.product, a.key)] or [found.asset(product)]
    written = []
    for asset in assets:
        _refuse_removed(store, found, asset)
        for key, digest in _expected(store, found, asset).items():
            path = Path(destination, key)
            store.download(f"{found.prefix}/{key}", path)
            if _file_sha256(path) != digest:
                path.unlink()
                raise IntegrityError(
                    f"{store.url(found.prefix)}/{key} is not what was published",
                    f"sha256 {digest}",
                    "fetch again; if it stays so, tell the publisher",
                )
            written.append(path)
    return tuple(written)


def wait_for(
    url: str | Path,
    cycle: Cycle | str,
    timeout: float | timedelta,
    variant: str | None = None,
    poll: float = 5.0,
) -> Manifest:
    """Wait until a cycle is published.

    Args:
        timeout: seconds (or a timedelta) after which it gives up.

    Raises:
        PublicationError: it is not published when the time is over.
    """
    wanted = cycle if isinstance(cycle, Cycle) else Cycle.parse(cycle)
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    end = time.monotonic() + seconds
    while True:
        store = open_store(url, create=False)
        try:
            return _manifest(store, _variant(store, variant), wanted)
        except _NotPublishedError as error:
            left = end - time.monotonic()
            if left <= 0:
                raise PublicationError(
                    f"{wanted} was not published within {seconds:g} s", "a published forecast"
                ) from error
            time.sleep(min(poll, left))


def verify(
    url: str | Path,
    cycle: Cycle | str | None = None,
    variant: str | None = None,
    *,
    strict: bool = True,
) -> VerifyReport:
    """Read every object of a forecast and compare it with the manifest.

    Args:
        url: root of a store, or the folder of one forecast (the one with `manifest.json`).
        strict: raise when something is wrong; otherwise the report says it.

    Raises:
        IntegrityError: an object is missing, altered or extra, each by name; or the manifest
            itself is damaged.
    """
    store = open_store(url, create=False)
    try:
        found = Manifest.from_json(store.get(layout.MANIFEST), store.url(layout.MANIFEST))
        prefix = ""
    except ObjectMissing:
        found = _manifest(store, _variant(store, variant), cycle)
        prefix = found.prefix
    report = _verify(store, found, prefix)
    if strict and not report.ok:
        raise IntegrityError(str(report), "the forecast as published", "fetch or publish it again")
    return report


def _refuse_removed(store: ObjectStore, found: Manifest, asset: Asset) -> None:
    when = read_removed(store, found.prefix).get(asset.key)
    if when is not None:
        raise PublicationError(
            f"{asset.key} of {found.variant} {found.cycle} was removed on {when:%Y-%m-%d}: it is "
            "older than its kind is kept",
            "a forecast that still has it",
            "`mosaic products ls` shows what is there",
        )


def _verify(store: ObjectStore, found: Manifest, prefix: str) -> VerifyReport:
    expected: dict[str, str] = {}
    missing, altered = [], []
    removed = read_removed(store, prefix)
    for asset in found.assets:
        if asset.key in removed:
            continue
        if not asset.is_zarr:
            expected[asset.key] = asset.sha256
            continue
        entry = checksums.digests(store, prefix, [asset.checksums_key])[asset.checksums_key]
        if entry is None:
            missing.append(asset.checksums_key)
        elif entry[1] != asset.sha256:
            altered.append(asset.checksums_key)
        else:
            expected |= _list_of(store, asset, prefix)
    total = 0
    for key, measured in checksums.digests(store, prefix, sorted(expected)).items():
        if measured is None:
            missing.append(key)
        elif measured[1] != expected[key]:
            altered.append(key)
        else:
            total += measured[0]
    extra = _extra(store, found, prefix, set(expected)) if store.writable else ()
    return VerifyReport(
        store.url(prefix),
        len(expected),
        total,
        tuple(sorted(missing)),
        tuple(sorted(altered)),
        extra,
    )


def _extra(store: ObjectStore, found: Manifest, prefix: str, expected: set[str]) -> tuple[str, ...]:
    """Objects that the manifest does not name (a web server cannot list: none)."""
    known = (
        expected
        | {layout.MANIFEST, layout.REMOVED}
        | {a.checksums_key for a in found.assets if a.is_zarr}
    )
    # Below a Zarr whose list is gone or altered nothing can be called extra.
    unknown = tuple(
        f"{a.key}/"
        for a in found.assets
        if a.is_zarr and not any(key.startswith(f"{a.key}/") for key in expected)
    )
    base = f"{prefix}/" if prefix else ""
    keys = {info.key.removeprefix(base) for info in store.list(prefix)}
    return tuple(sorted(key for key in keys - known if not key.startswith(unknown)))


def _expected(store: ObjectStore, found: Manifest, asset: Asset) -> dict[str, str]:
    """sha256 of every object of an asset, by key."""
    if not asset.is_zarr:
        return {asset.key: asset.sha256}
    return _list_of(store, asset, found.prefix)


def _list_of(store: ObjectStore, asset: Asset, prefix: str) -> dict[str, str]:
    key = f"{prefix}/{asset.checksums_key}" if prefix else asset.checksums_key
    text = store.get(key)
    if hashlib.sha256(text).hexdigest() != asset.sha256:
        raise IntegrityError(f"{store.url(key)} was changed", f"sha256 {asset.sha256}")
    listed = checksums.parse_list(text, store.url(key))
    if any(".." in name.split("/") or not name.startswith(f"{asset.key}/") for name in listed):
        raise IntegrityError(f"{store.url(key)} names objects outside {asset.key}", "only its own")
    return listed


class _NotPublishedError(PublicationError):
    pass


def _latest(store: ObjectStore, variant: str) -> Latest:
    found = read_latest(store, variant)
    if found is None:
        raise _NotPublishedError(
            f"no forecast of {variant} is published in {store.root}",
            f"{layout.latest_key(variant)}",
            "wait for the first cycle, or check the root and the variant",
        )
    return found


def _manifest(store: ObjectStore, variant: str, cycle: Cycle | str | None) -> Manifest:
    if cycle is None:
        pointer = _latest(store, variant)
        identity = (pointer.cycle, pointer.revision)
    else:
        wanted = cycle if isinstance(cycle, Cycle) else Cycle.parse(cycle)
        identity = (wanted, _revision(store, variant, wanted))
    found = read_manifest(store, variant, *identity)
    if found is None:
        raise _NotPublishedError(
            f"{variant} {identity[0]} is not published in {store.root}",
            "a cycle with a manifest",
            "`mosaic products ls` shows what is there",
        )
    if cycle is None and found.digest != pointer.digest:
        raise IntegrityError(
            f"{store.url(found.prefix)} is not the forecast that latest.json names",
            f"digest {pointer.digest}",
        )
    return found


def _revision(store: ObjectStore, variant: str, cycle: Cycle) -> int:
    if store.writable:
        return published_revision(store, variant, cycle) or 1
    revision = 1
    while store.exists(layout.manifest_key(variant, cycle, revision + 1)):
        revision += 1
    return revision


def _variant(store: ObjectStore, variant: str | None) -> str:
    if variant is not None:
        return variant
    found = store.folders(layout.FORECASTS) if store.writable else ()
    if len(found) == 1:
        return found[0]
    if not found and store.writable:
        raise _NotPublishedError(
            f"no forecast is published in {store.root}", "one", "check the root"
        )
    raise ConfigurationError(
        f"{store.root} holds {', '.join(found) or 'variants that it cannot list'}",
        "the variant to be named",
        f"variant={found[0]!r}" if found else "variant='hres', say",
    )


def _file_sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
