"""`removed.json`: which assets of a published forecast retention has taken away.

The manifest stays as it was published. This object beside it tells readers that an asset is gone on
purpose, and since when; who verifies the forecast does without its objects.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from mosaic_core.publication import layout, stac
from mosaic_core.publication.latest import published_revision
from mosaic_core.publication.manifest import (
    SCHEMA_VERSION,
    Asset,
    Manifest,
    dump,
    read_document,
    read_time,
)
from mosaic_core.storage import ObjectMissing, ObjectStore


def read_removed(store: ObjectStore, prefix: str) -> dict[str, datetime]:
    """Keys of assets that were removed from the forecast below `prefix`, and when (UTC)."""
    key = f"{prefix}/{layout.REMOVED}" if prefix else layout.REMOVED
    try:
        document = read_document(store.get(key), store.url(key))
    except ObjectMissing:
        return {}
    return {name: read_time(when) for name, when in document["assets"].items()}


def remove_assets(
    store: ObjectStore, manifest: Manifest, assets: Iterable[Asset], now: datetime | None = None
) -> int:
    """Remove assets of a published forecast, said first, so that no reader is surprised.

    Returns:
        how many objects were removed.
    """
    now = now or datetime.now(UTC)
    wanted = list(assets)
    removed = read_removed(store, manifest.prefix)
    told = {**{asset.key: now for asset in wanted}, **removed}
    document = {"schema_version": SCHEMA_VERSION, "assets": told}
    store.put(f"{manifest.prefix}/{layout.REMOVED}", dump(document))
    count = 0
    for asset in wanted:
        key = f"{manifest.prefix}/{asset.key}"
        count += store.delete_all(key) if asset.is_zarr else 1
        store.delete(f"{manifest.prefix}/{asset.checksums_key}" if asset.is_zarr else key)
    if _is_newest(store, manifest.id):
        stac.write(store, manifest, told)
    return count


def remove_forecast(store: ObjectStore, prefix: str) -> int:
    """Remove a whole forecast: first its manifest, so that no reader sees a part of it.

    Its STAC item goes with it.
    """
    identity = layout.parse_forecast_prefix(prefix)
    newest = _is_newest(store, identity)
    store.delete(f"{prefix}/{layout.MANIFEST}")
    if newest:
        stac.forget(store, identity.variant, identity.cycle)
    return 1 + store.delete_all(prefix)


def _is_newest(store: ObjectStore, identity: layout.ForecastId) -> bool:
    """Whether it is the revision that its STAC item is of."""
    newest = published_revision(store, identity.variant, identity.cycle)
    return newest is None or newest == identity.revision
