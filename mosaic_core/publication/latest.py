"""`latest.json`: which forecast of a variant is the newest whole one.

It can always be derived again from the manifests, and is never more than a pointer to one. No
kind of store offers compare-and-swap that every server honours, so the pointer moves like this:

1. the newest published forecast is derived from the manifests;
2. the pointer is written only when that one is newer than the one it names;
3. after the write the manifests are looked at again, until nothing newer is found.

A manifest is there before its publisher starts at 1, so whoever writes last has seen the newest
one: the pointer ends at the newest forecast under any interleaving, and a kill at any moment
leaves the old or the new. Two publishers of one variant at the same instant could for a moment
set it back to the previous whole forecast; who must exclude even that passes a lock
(`Catalog.exclusive`) to `publish`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mosaic_core.cycle import Cycle
from mosaic_core.errors import ConfigurationError, IntegrityError
from mosaic_core.publication import layout
from mosaic_core.publication.manifest import (
    SCHEMA_VERSION,
    Manifest,
    dump,
    read_document,
    read_time,
    refuse_unknown_version,
)
from mosaic_core.storage import ObjectMissing, ObjectStore


@dataclass(frozen=True)
class Latest:
    """The content of `latest.json`.

    Attributes:
        manifest: key of the manifest, relative to the root of the store.
        digest: digest of the forecast, see `Manifest.digest`.
        published: time of publication, UTC.
    """

    cycle: Cycle
    variant: str
    revision: int
    manifest: str
    digest: str
    published: datetime

    @classmethod
    def of(cls, manifest: Manifest) -> Latest:
        published = manifest.timeliness.published or manifest.timeliness.nominal
        return cls(
            manifest.cycle,
            manifest.variant,
            manifest.revision,
            f"{manifest.prefix}/{layout.MANIFEST}",
            manifest.digest,
            published,
        )

    @property
    def order(self) -> tuple[Cycle, int]:
        return self.cycle, self.revision

    def to_json(self) -> bytes:
        return dump({"schema_version": SCHEMA_VERSION, **vars(self)})

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Latest:
        """Raises IntegrityError when the content is not that of a pointer."""
        document = read_document(data, where)
        refuse_unknown_version(document, where)
        try:
            cycle, revision = Cycle.parse(document["cycle"]), int(document["revision"])
            key = layout.manifest_key(document["variant"], cycle, revision)
            if document["manifest"] != key:
                raise ValueError(f"manifest {document['manifest']!r} instead of {key!r}")
            published = read_time(document["published"])
            return cls(
                cycle, document["variant"], revision, key, str(document["digest"]), published
            )
        except (KeyError, TypeError, ValueError, AttributeError, ConfigurationError) as error:
            raise IntegrityError(
                f"{where} is damaged: {error!r}", "a pointer to a manifest", "publish again"
            ) from error


def read_latest(store: ObjectStore, variant: str) -> Latest | None:
    """What `latest.json` says; None when nothing has been published."""
    key = layout.latest_key(variant)
    try:
        return Latest.from_json(store.get(key), store.url(key))
    except ObjectMissing:
        return None


def read_manifest(store: ObjectStore, variant: str, cycle: Cycle, revision: int) -> Manifest | None:
    """The manifest of one forecast; None when it is not published.

    Raises:
        IntegrityError: the manifest is damaged, or is that of another forecast.
    """
    key = layout.manifest_key(variant, cycle, revision)
    try:
        manifest = Manifest.from_json(store.get(key), store.url(key))
    except ObjectMissing:
        return None
    if manifest.id != layout.ForecastId(variant, cycle, revision):
        raise IntegrityError(
            f"{store.url(key)} is the manifest of {manifest.prefix}", "its own", "publish again"
        )
    return manifest


def revisions(store: ObjectStore, variant: str, cycle: Cycle) -> tuple[int, ...]:
    """Revisions of a cycle that have a folder, published or not, ascending."""
    day = layout.forecast_prefix(variant, cycle).rsplit("/", 1)[0]
    found = []
    for name in store.folders(day):
        try:
            identity = layout.parse_forecast_prefix(f"{day}/{name}")
        except ConfigurationError:
            continue
        if identity.cycle == cycle:
            found.append(identity.revision)
    return tuple(sorted(found))


def published_revision(store: ObjectStore, variant: str, cycle: Cycle) -> int | None:
    """The newest revision of a cycle that has a manifest; None when there is none."""
    for revision in reversed(revisions(store, variant, cycle)):
        if store.exists(layout.manifest_key(variant, cycle, revision)):
            return revision
    return None


def derive_latest(store: ObjectStore, variant: str) -> Latest | None:
    """The newest published forecast as the manifests have it."""
    root = layout.variant_prefix(variant)
    for year in _descending(store, root):
        for month in _descending(store, year):
            for day in _descending(store, month):
                for hour in (18, 12, 6, 0):
                    try:
                        name = f"{day}/{hour:02d}Z"
                        cycle = layout.parse_forecast_prefix(name).cycle
                    except ConfigurationError:
                        break
                    revision = published_revision(store, variant, cycle)
                    if revision is not None:
                        manifest = read_manifest(store, variant, cycle, revision)
                        return None if manifest is None else Latest.of(manifest)
    return None


def move_latest(store: ObjectStore, variant: str) -> Latest | None:
    """Let `latest.json` name the newest published forecast; never moves it back.

    Returns:
        What it names afterwards; None when nothing is published.
    """
    while True:
        newest = derive_latest(store, variant)
        try:
            current = read_latest(store, variant)
        except IntegrityError:
            current = None
        if newest is None or (current is not None and current.order >= newest.order):
            return current
        store.put(layout.latest_key(variant), newest.to_json())


def _descending(store: ObjectStore, prefix: str) -> list[str]:
    return [f"{prefix}/{name}" for name in reversed(store.folders(prefix)) if name.isdigit()]
