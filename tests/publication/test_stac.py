"""The static STAC of published forecasts, as pystac reads and validates it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from mosaic_core.cycle import Cycle
from mosaic_core.publication import stac
from mosaic_core.publication.publish import publish
from mosaic_core.publication.removal import remove_assets, remove_forecast
from mosaic_core.storage import open_store
from tests.publication.helpers import CYCLE, draft, stage

LATER = Cycle.parse("2026-11-20T06Z")
pystac = pytest.importorskip("pystac", reason="needs pystac[validation]")


@pytest.fixture
def validator():
    """pystac's own validation with the schemas of STAC that it carries; those of the extensions
    are on the web, and their content is checked by pystac's classes instead."""
    from pystac.validation import RegisteredValidator
    from pystac.validation.stac_validator import JsonSchemaSTACValidator

    before = RegisteredValidator.get_validator()
    offline = JsonSchemaSTACValidator()
    for uri in (stac.DATACUBE, stac.FILE):
        offline.schema_cache[uri] = {"$schema": "http://json-schema.org/draft-07/schema#"}
    RegisteredValidator.set_validator(offline)
    yield
    RegisteredValidator.set_validator(before)


@pytest.fixture
def published(tmp_path):
    store = open_store(tmp_path)
    manifests = [publish(store, stage(store, cycle)).manifest for cycle in (CYCLE, LATER)]
    return tmp_path, store, manifests


@pytest.mark.usefixtures("validator")
def test_catalog_collection_and_items_validate(published):
    folder, _, _ = published
    catalog = pystac.Catalog.from_file(str(folder / "catalog.json"))
    catalog.validate()
    (collection,) = catalog.get_children()
    collection.validate()
    assert collection.id == "hres"
    assert collection.license == "CC-BY-4.0"
    items = sorted(collection.get_items(), key=lambda item: item.id)
    assert [item.id for item in items] == ["hres-20261120T00Z", "hres-20261120T06Z"]
    for item in items:
        item.validate()
        assert item.get_collection().id == "hres"
    assert items[0].datetime == CYCLE.init_time
    assert items[1].common_metadata.end_datetime == Cycle.parse("2026-11-21T06Z").init_time


def test_an_invalid_item_would_be_found(published, validator):
    folder, _, _ = published
    path = folder / stac.item_key("hres", CYCLE)
    document = json.loads(path.read_text())
    del document["properties"]["datetime"]
    with pytest.raises(pystac.errors.STACValidationError):
        pystac.validation.validate_dict(document)


def test_assets_lead_to_their_bytes_and_checksums(published):
    from pystac.extensions.file import FileExtension

    folder, _, _ = published
    item = pystac.Item.from_file(str(folder / stac.item_key("hres", CYCLE)))
    assert set(item.assets) == {
        *("manifest", "maps/t2m.png", "statistics.zarr", "statistics.zarr.sha256"),
    }
    for name, asset in item.assets.items():
        path = Path(asset.get_absolute_href())
        assert path.exists(), name
        if name.endswith((".png", ".sha256")):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert FileExtension.ext(asset).checksum == f"1220{digest}"
    assert FileExtension.ext(item.assets["maps/t2m.png"]).size == len(b"picture 1.000000")


def test_cubes_are_described(published):
    from pystac.extensions.datacube import DatacubeExtension

    folder, _, _ = published
    item = pystac.Item.from_file(str(folder / stac.item_key("hres", CYCLE)))
    for cube in (
        DatacubeExtension.ext(item.assets["statistics.zarr"]),
        DatacubeExtension.ext(item),
    ):
        assert {name: (d.dim_type, d.extent) for name, d in cube.dimensions.items()} == {
            "latitude": ("spatial", [0.0, 1.0]),
            "longitude": ("spatial", [0.0, 2.0]),
        }
        (variable,) = cube.variables.values()
        assert variable.dimensions == ["latitude", "longitude"]


def test_a_new_revision_takes_the_items_place(published):
    folder, store, _ = published
    publish(store, stage(store, revision=2, content=2.0), revision=2)
    item = pystac.Item.from_file(str(folder / stac.item_key("hres", CYCLE)))
    assert item.properties["mosaic:revision"] == 2
    assert "/00Z.r2/" in item.assets["maps/t2m.png"].href
    before = {info.key: info.modified for info in store.list("stac")}
    publish(store, draft(), revision=2)
    assert {info.key: info.modified for info in store.list("stac")} == before


@pytest.mark.usefixtures("validator")
def test_what_is_removed_is_no_longer_listed(published):
    folder, store, (first, _) = published
    picture = next(asset for asset in first.assets if asset.key.endswith(".png"))
    remove_assets(store, first, [picture])
    item = pystac.Item.from_file(str(folder / stac.item_key("hres", CYCLE)))
    assert "maps/t2m.png" not in item.assets
    assert "statistics.zarr" in item.assets
    remove_forecast(store, first.prefix)
    collection = pystac.Collection.from_file(str(folder / stac.collection_key("hres")))
    collection.validate()
    assert [item.id for item in collection.get_items()] == ["hres-20261120T06Z"]
    assert collection.license == "CC-BY-4.0"
