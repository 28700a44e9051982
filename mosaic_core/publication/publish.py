"""Publication: the finished objects of a forecast become one visible thing, or nothing does.

The makers write every product into the forecast's folder (`next_revision` says which); until the
manifest is there no consumer looks at it. `publish` then

1. reads every object back and digests it;
2. creates `manifest.json` with If-None-Match: the commit;
3. moves `latest.json` forward, and writes the STAC item of the cycle;
4. removes `in-progress.json`.

Every step can be repeated, so a publisher killed anywhere is followed by another `publish` with
the same draft. One publisher a cycle is the catalog's claim to hold.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from mosaic_core.cycle import Cycle
from mosaic_core.errors import PublicationError
from mosaic_core.publication import checksums, layout, stac
from mosaic_core.publication.latest import (
    Latest,
    move_latest,
    published_revision,
    read_manifest,
    revisions,
)
from mosaic_core.publication.manifest import Asset, Manifest, ManifestDraft
from mosaic_core.publication.progress import clear_in_progress
from mosaic_core.publication.removal import read_removed
from mosaic_core.storage import ObjectExists, ObjectStore


@dataclass(frozen=True)
class Publication:
    """What `publish` did.

    Attributes:
        manifest: of the published forecast: the new one, or the equal one found.
        outcome: `published`, or `unchanged` when an equal forecast was there already.
        latest: what `latest.json` names now.
    """

    manifest: Manifest
    outcome: Literal["published", "unchanged"]
    latest: Latest | None


def next_revision(store: ObjectStore, variant: str, cycle: Cycle) -> int:
    """The revision whose folder the next forecast of the cycle is written into.

    An unfinished one is taken up again; published ones are never touched.
    """
    published = published_revision(store, variant, cycle)
    return 1 if published is None else published + 1


def publish(
    store: ObjectStore,
    draft: ManifestDraft,
    *,
    revision: int = 1,
    discard: Iterable[str] = (),
    lock: AbstractContextManager[object] | None = None,
    now: datetime | None = None,
) -> Publication:
    """Publish the forecast whose objects lie in the folder of `revision`.

    Args:
        discard: keys in the folder that are no part of the forecast (the remains of a product
            that failed): removed first.
        lock: held while `latest.json` moves; see `mosaic_core.publication.latest`.
        now: time of publication, UTC.

    Raises:
        PublicationError: an asset is not there or not as written, an object belongs to no
            asset, the manifest is invalid, or another forecast is published under `revision`.
        StoreError: the store refuses; nothing new is visible, and it may be called again.
    """
    prefix = layout.forecast_prefix(draft.variant, draft.cycle, revision)
    published = read_manifest(store, draft.variant, draft.cycle, revision)
    if published is not None:
        candidate = _manifest(draft, revision, _measured(store, prefix, draft, frozen=True), now)
        _require_equal(published, candidate)
        return _finish(store, published, "unchanged", lock)
    for key in discard:
        store.delete(f"{prefix}/{key}")
        store.delete(f"{prefix}/{key}{layout.CHECKSUMS}")
        store.delete_all(f"{prefix}/{key}")
    manifest = _manifest(draft, revision, _measured(store, prefix, draft, frozen=False), now)
    equal = _equal_revision(store, manifest)
    if equal is not None:
        if equal.revision != revision and not store.exists(f"{prefix}/{layout.MANIFEST}"):
            store.delete_all(prefix)
        return _finish(store, equal, "unchanged", lock)
    data = manifest.to_json()
    store.flush(prefix)
    try:
        store.create(f"{prefix}/{layout.MANIFEST}", data)
    except ObjectExists:
        found = read_manifest(store, draft.variant, draft.cycle, revision)
        if found is None:
            raise
        _require_equal(found, manifest)
        return _finish(store, found, "published", lock)
    return _finish(store, manifest, "published", lock)


def _finish(
    store: ObjectStore,
    manifest: Manifest,
    outcome: Literal["published", "unchanged"],
    lock: AbstractContextManager[object] | None,
) -> Publication:
    with lock or nullcontext():
        latest = move_latest(store, manifest.variant)
        describe(store, manifest.variant, manifest.cycle)
    clear_in_progress(store, manifest.variant, manifest.cycle)
    return Publication(manifest, outcome, latest)


def describe(store: ObjectStore, variant: str, cycle: Cycle) -> None:
    """Write the STAC item of a cycle, of its newest published revision; none, if there is none."""
    revision = published_revision(store, variant, cycle)
    manifest = read_manifest(store, variant, cycle, revision) if revision else None
    if manifest is not None:
        stac.write(store, manifest, read_removed(store, manifest.prefix))


def _measured(
    store: ObjectStore, prefix: str, draft: ManifestDraft, *, frozen: bool
) -> tuple[Asset, ...]:
    assets = sorted(draft.assets, key=lambda asset: asset.key)
    keys = [asset.key for asset in assets]
    for key in keys:
        others = [k for k in keys if k != key and f"{k}/".startswith(f"{key}/")]
        if keys.count(key) > 1 or others or key == layout.MANIFEST:
            raise PublicationError(
                f"asset key {key!r} is used twice or overlaps {', '.join(others) or 'another'}",
                "one key an asset, none inside another",
            )
    _refuse_strangers(store, prefix, draft)
    return tuple(checksums.measure(store, prefix, asset, frozen=frozen) for asset in assets)


def _refuse_strangers(store: ObjectStore, prefix: str, draft: ManifestDraft) -> None:
    """PublicationError when the folder holds an object of no asset: nothing could verify it."""
    files = {a.key for a in draft.assets if not a.is_zarr} | {layout.MANIFEST}
    files |= {a.key + layout.CHECKSUMS for a in draft.assets if a.is_zarr}
    trees = tuple(f"{a.key}/" for a in draft.assets if a.is_zarr)
    keys = (info.key.removeprefix(f"{prefix}/") for info in store.list(prefix))
    strangers = sorted(key for key in keys if key not in files and not key.startswith(trees))
    if strangers:
        raise PublicationError(
            f"{len(strangers)} objects in {store.url(prefix)} belong to no asset: "
            + ", ".join(strangers[:5])
            + (", ..." if len(strangers) > 5 else ""),
            "an asset for every object",
            "list them as assets, or pass their keys as `discard`",
        )


def _manifest(
    draft: ManifestDraft, revision: int, assets: tuple[Asset, ...], now: datetime | None
) -> Manifest:
    published = now or datetime.now(UTC)
    return Manifest(
        cycle=draft.cycle,
        variant=draft.variant,
        revision=revision,
        model=draft.model,
        ensemble=draft.ensemble,
        inputs=draft.inputs,
        assets=assets,
        timeliness=dataclasses.replace(draft.timeliness, published=published),
        missing=draft.missing,
        quality=draft.quality,
        licence=draft.licence,
        attribution=draft.attribution,
    )


def _equal_revision(store: ObjectStore, manifest: Manifest) -> Manifest | None:
    """The newest published revision of the cycle, if it is the same forecast."""
    for revision in reversed(revisions(store, manifest.variant, manifest.cycle)):
        found = read_manifest(store, manifest.variant, manifest.cycle, revision)
        if found is not None:
            return found if found.digest == manifest.digest else None
    return None


def _require_equal(published: Manifest, candidate: Manifest) -> None:
    if published.digest != candidate.digest:
        raise PublicationError(
            f"{published.prefix} is published with digest {published.digest[:12]}, "
            f"this forecast has {candidate.digest[:12]}",
            "a published forecast to stay as it is",
            f"write the new one as revision {published.revision + 1} (`next_revision`)",
        )
