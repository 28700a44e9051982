"""Static STAC 1.1: a catalog, a collection for each variant, an item for each published cycle.

    catalog.json
    stac/v1/<variant>/collection.json
    stac/v1/<variant>/items/<cycle>.json

An item names the assets of the cycle's newest revision with their media types, sizes and sha256
(multihash, `file` extension), and the dimensions and variables of each Zarr (`datacube` extension).
All of it follows from the manifests: it may be written again at any time, and what another writer
overtook comes right at the next publication.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mosaic_core.cycle import Cycle
from mosaic_core.dims import LATITUDE, LEAD_TIME, LEVEL, LONGITUDE
from mosaic_core.publication import layout
from mosaic_core.publication.manifest import Asset, Manifest, dump
from mosaic_core.storage import ObjectMissing, ObjectStore

if TYPE_CHECKING:
    import xarray as xr

VERSION: Final = "1.1.0"
ROOT: Final = "catalog.json"
FOLDER: Final = "stac/v1"
DATACUBE: Final = "https://stac-extensions.github.io/datacube/v2.2.0/schema.json"
FILE: Final = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
_SHA256: Final = "1220"
"""Multihash of sha256: its code, and its length of 32 bytes."""
_GLOBE: Final = [-180.0, -90.0, 180.0, 90.0]
_MANY: Final = 64


def item_key(variant: str, cycle: Cycle) -> str:
    return f"{FOLDER}/{variant}/items/{cycle.id}.json"


def collection_key(variant: str) -> str:
    return f"{FOLDER}/{variant}/collection.json"


def write(store: ObjectStore, manifest: Manifest, removed: Collection[str] = ()) -> None:
    """Write the item of a published forecast, its collection and the catalog.

    Args:
        removed: keys of assets that retention has taken away.

    Raises:
        StoreError: the store refuses; it may be called again.
    """
    key = item_key(manifest.variant, manifest.cycle)
    _put(store, key, item(store, manifest, removed))
    _index(store, manifest.variant, manifest)


def forget(store: ObjectStore, variant: str, cycle: Cycle) -> None:
    """Take the item of a cycle away whose forecast is gone."""
    store.delete(item_key(variant, cycle))
    _index(store, variant, None)


def _index(store: ObjectStore, variant: str, newest: Manifest | None) -> None:
    _put(store, collection_key(variant), collection(store, variant, newest))
    _put(store, ROOT, catalog(store))


def _put(store: ObjectStore, key: str, document: Mapping[str, Any]) -> None:
    """Write unless it is there as it is."""
    data = dump(document)
    try:
        if store.get(key) == data:
            return
    except ObjectMissing:
        pass
    store.put(key, data)


def catalog(store: ObjectStore) -> dict[str, Any]:
    """The catalog of all variants that have a collection."""
    children = [collection_key(variant) for variant in store.folders(FOLDER)]
    return {
        "type": "Catalog",
        "stac_version": VERSION,
        "id": "mosaic-forecast",
        "title": "Mosaic forecasts",
        "description": "Ensemble weather forecasts by model variant.",
        "links": [
            _link("root", ROOT, ROOT),
            *(_link("child", ROOT, key) for key in children if store.exists(key)),
        ],
    }


def collection(store: ObjectStore, variant: str, newest: Manifest | None) -> dict[str, Any]:
    """The collection of a variant, with a link to every item.

    Args:
        newest: whose licence and attribution it states; None keeps those that it states.
    """
    own = collection_key(variant)
    before = _read(store, own)
    keys = sorted(info.key for info in store.list(f"{FOLDER}/{variant}/items"))
    cycles = [Cycle.parse(posixpath.basename(key).removesuffix(".json")) for key in keys]
    first = cycles[0].init_time if cycles else None
    licence = _licence(newest.licence) if newest else before.get("license", "other")
    providers = before.get("providers", [])
    if newest is not None and newest.attribution:
        providers = [{"name": newest.attribution, "roles": ["producer"]}]
    return {
        "type": "Collection",
        "stac_version": VERSION,
        "stac_extensions": [],
        "id": variant,
        "title": f"Mosaic {variant}",
        "description": f"Ensemble weather forecasts of Mosaic, variant {variant}.",
        "license": licence,
        "providers": providers,
        "extent": {
            "spatial": {"bbox": [_GLOBE]},
            "temporal": {"interval": [[first, None]]},
        },
        "links": [
            _link("root", own, ROOT),
            _link("parent", own, ROOT),
            *(_link("item", own, key, "application/geo+json") for key in keys),
        ],
    }


def _read(store: ObjectStore, key: str) -> dict[str, Any]:
    import json

    try:
        document: dict[str, Any] = json.loads(store.get(key))
    except (ObjectMissing, ValueError):
        return {}
    return document


def _licence(text: str) -> str:
    return text if re.fullmatch(r"[\w\-.+]+", text) else "other"


def item(store: ObjectStore, manifest: Manifest, removed: Collection[str] = ()) -> dict[str, Any]:
    """The item of a forecast."""
    own = item_key(manifest.variant, manifest.cycle)
    start = manifest.cycle.init_time
    hours = manifest.ensemble.steps * manifest.ensemble.step_hours
    assets: dict[str, Any] = {
        "manifest": {
            "href": _relative(own, f"{manifest.prefix}/{layout.MANIFEST}"),
            "type": "application/json",
            "title": "Manifest: what the forecast is, and how to check it",
            "roles": ["metadata"],
        }
    }
    cube: dict[str, Any] = {}
    for asset in manifest.assets:
        if asset.key in removed:
            continue
        assets |= _assets(store, manifest, asset, own)
        if asset.is_zarr and (asset.product == "ensemble" or not cube):
            described = assets[asset.key]
            cube = {key: described[key] for key in ("cube:dimensions", "cube:variables")}
    west, south, east, north = _GLOBE
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": VERSION,
        "stac_extensions": [FILE, *([DATACUBE] if cube else [])],
        "id": f"{manifest.variant}-{manifest.cycle.id}",
        "collection": manifest.variant,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": _GLOBE,
        "properties": {
            "title": f"{manifest.model.name}, from {manifest.cycle.id}",
            "datetime": start,
            "start_datetime": start,
            "end_datetime": start + timedelta(hours=hours),
            "created": manifest.timeliness.published,
            "mosaic:revision": manifest.revision,
            "mosaic:members": manifest.ensemble.members,
            "mosaic:step_hours": manifest.ensemble.step_hours,
            "mosaic:flags": list(manifest.quality.flags),
            "mosaic:missing": [missing.product for missing in manifest.missing],
            **cube,
        },
        "links": [
            _link("root", own, ROOT),
            _link("parent", own, collection_key(manifest.variant)),
            _link("collection", own, collection_key(manifest.variant)),
        ],
        "assets": assets,
    }


def _assets(store: ObjectStore, manifest: Manifest, asset: Asset, own: str) -> dict[str, Any]:
    """The asset; of a Zarr also the list of its checksums, to which the digest belongs."""
    key = f"{manifest.prefix}/{asset.key}"
    role = "visual" if asset.media_type.startswith("image/") else "data"
    made: dict[str, Any] = {
        "href": _relative(own, key),
        "type": asset.media_type,
        "title": asset.title or asset.key,
        "roles": [role],
        "file:size": asset.bytes,
    }
    if not asset.is_zarr:
        return {asset.key: {**made, "file:checksum": _SHA256 + asset.sha256}}
    listed = {
        "href": _relative(own, f"{manifest.prefix}/{asset.checksums_key}"),
        "type": "text/plain",
        "title": f"sha256 of every object of {asset.key}, for sha256sum -c",
        "roles": ["metadata"],
        "file:checksum": _SHA256 + asset.sha256,
    }
    return {asset.key: {**made, **_cube(store, key)}, asset.checksums_key: listed}


def _cube(store: ObjectStore, key: str) -> dict[str, Any]:
    """Dimensions and variables of a Zarr, in the terms of the extension."""
    import xarray as xr

    opened = xr.open_zarr(store.zarr(key, read_only=True), chunks=None, consolidated=True)
    variables = {}
    for name, array in opened.data_vars.items():
        described: dict[str, Any] = {"dimensions": [str(d) for d in array.dims], "type": "data"}
        if "units" in array.attrs:
            described["unit"] = str(array.attrs["units"])
        if "long_name" in array.attrs:
            described["description"] = str(array.attrs["long_name"])
        variables[str(name)] = described
    dimensions = {str(dim): _dimension(opened, str(dim)) for dim in opened.sizes}
    return {"cube:dimensions": dimensions, "cube:variables": variables}


def _dimension(opened: xr.Dataset, name: str) -> dict[str, Any]:
    values = opened[name].values if name in opened.coords else np.arange(opened.sizes[name])
    if np.issubdtype(values.dtype, np.timedelta64):
        values = values.astype("timedelta64[s]").astype(np.int64) / 3600
    if values.dtype.kind not in "iuf":
        return {"type": name, "values": [str(value) for value in values]}
    numbers = [float(value) for value in values]
    extent = {"extent": [min(numbers), max(numbers)]}
    if name in (LATITUDE, LONGITUDE):
        axis = "y" if name == LATITUDE else "x"
        return {"type": "spatial", "axis": axis, "reference_system": 4326, **extent}
    if name == LEVEL:
        return {"type": "spatial", "axis": "z", "values": numbers, "unit": "hPa"}
    described: dict[str, Any] = {"type": name, **extent}
    if len(numbers) <= _MANY:
        described["values"] = numbers
    if name == LEAD_TIME:
        described["unit"] = "h"
    return described


def _link(rel: str, own: str, target: str, media_type: str = "application/json") -> dict[str, str]:
    return {"rel": rel, "href": _relative(own, target), "type": media_type}


def _relative(own: str, target: str) -> str:
    path = posixpath.relpath(target, posixpath.dirname(own) or ".")
    return path if path.startswith(".") else f"./{path}"
