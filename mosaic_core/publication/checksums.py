"""Digests of what lies in the store: of files, and of whole Zarr trees."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from mosaic_core.errors import IntegrityError, PublicationError
from mosaic_core.publication import layout
from mosaic_core.publication.manifest import Asset, AssetDraft
from mosaic_core.storage import ObjectMissing, ObjectStore

READERS: Final = 8


def measure(store: ObjectStore, prefix: str, draft: AssetDraft, *, frozen: bool = False) -> Asset:
    """Read an asset back and describe it; for a Zarr, also write its list `<key>.sha256`.

    The list has one line an object, `<sha256>  <key relative to the forecast>`, sorted by key:
    `sha256sum -c` run in the forecast's folder reads it.

    Args:
        frozen: the forecast is published: read, and write nothing.

    Raises:
        PublicationError: the asset is not there, is empty, or is not what its maker wrote.
    """
    if draft.is_zarr:
        objects, size, digest = _measure_tree(store, prefix, draft.key, frozen)
    else:
        try:
            size, digest = store.sha256(f"{prefix}/{draft.key}")
        except ObjectMissing as error:
            raise PublicationError(
                f"asset {draft.key} is not in {store.url(prefix)}",
                "every asset written before it is published",
                "make the product again, or list it as missing",
            ) from error
        objects = 1
    if draft.sha256 is not None and draft.sha256 != digest:
        raise PublicationError(
            f"asset {draft.key} has sha256 {digest}",
            f"{draft.sha256}, as written",
            "make the product again",
        )
    return Asset(
        key=draft.key,
        product=draft.product,
        media_type=draft.media_type,
        title=draft.title,
        variables=draft.variables,
        lead_hours=draft.lead_hours,
        chunks=draft.chunks,
        attributes=draft.attributes,
        objects=objects,
        bytes=size,
        sha256=digest,
    )


def digests(store: ObjectStore, prefix: str, keys: list[str]) -> dict[str, tuple[int, str] | None]:
    """(bytes, sha256) of each object `prefix/key` by key; None for one that is not there."""

    def digest(key: str) -> tuple[int, str] | None:
        try:
            return store.sha256(f"{prefix}/{key}" if prefix else key)
        except ObjectMissing:
            return None

    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(keys, pool.map(digest, keys), strict=True))


def parse_list(text: bytes, where: str) -> dict[str, str]:
    """sha256 by key of a `sha256sum` list.

    Raises:
        IntegrityError: a line is not of that form.
    """
    found = {}
    for line in text.decode("utf-8", "replace").splitlines():
        digest, separator, key = line.partition("  ")
        if len(digest) != 64 or not separator or not key:
            raise IntegrityError(f"{where} has the line {line!r}", "<sha256>  <key>")
        found[key] = digest
    return found


def _measure_tree(store: ObjectStore, prefix: str, key: str, frozen: bool) -> tuple[int, int, str]:
    root = f"{prefix}/{key}"
    keys = sorted(info.key.removeprefix(f"{prefix}/") for info in store.list(root))
    if f"{key}/zarr.json" not in keys:
        raise PublicationError(
            f"{store.url(root)} is no Zarr ({len(keys)} objects, no zarr.json)",
            "a finished Zarr of version 3",
            "make the product again, or list it as missing",
        )
    found = digests(store, prefix, keys)
    lines, total = [], 0
    for name in keys:
        entry = found[name]
        if entry is None:
            raise PublicationError(f"{prefix}/{name} went away while it was read", "one publisher")
        total += entry[0]
        lines.append(f"{entry[1]}  {name}\n")
    text = "".join(lines).encode()
    if not frozen:
        store.put(f"{root}{layout.CHECKSUMS}", text)
    return len(keys), total, hashlib.sha256(text).hexdigest()
