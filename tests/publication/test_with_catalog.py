"""Store and catalog together: the last part of a cycle, and what a second worker meets."""

from __future__ import annotations

import pytest

from mosaic_core.catalog import Catalog
from mosaic_core.errors import CycleBusy
from mosaic_core.publication import client, layout
from mosaic_core.publication.publish import next_revision, publish
from mosaic_core.storage import open_store
from tests.publication.helpers import CYCLE, stage
from tests.servers import database_url, postgres_server

__all__ = ["database_url", "postgres_server"]


def test_cycle_is_claimed_published_and_recorded(object_store_url, database_url):
    store = open_store(object_store_url)
    with Catalog(database_url, check=False) as catalog:
        catalog.upgrade()
        claim = catalog.claim(CYCLE, "hres", "first worker")
        with pytest.raises(CycleBusy, match="first worker"):
            catalog.claim(CYCLE, "hres", "second worker")
        revision = next_revision(store, "hres", CYCLE)
        run = catalog.start_run(CYCLE, "hres", revision=revision)
        catalog.set_state(run, "forecasting")
        draft = stage(store, revision=revision)
        catalog.set_state(run, "products")
        catalog.set_state(run, "publishing")
        catalog.heartbeat(claim)
        lock = catalog.exclusive("latest hres")
        done = publish(store, draft, revision=revision, lock=lock)
        manifest = done.manifest
        for asset in manifest.assets:
            catalog.record_product(
                run,
                key=f"{manifest.prefix}/{asset.key}",
                name=asset.product,
                media_type=asset.media_type,
                state="published",
                size=asset.bytes,
                sha256=asset.sha256,
            )
        catalog.set_state(
            run, done.outcome, digest=manifest.digest, published=manifest.timeliness.published
        )
        catalog.release(claim)
        found = catalog.latest_published("hres")
        assert found is not None
        assert (found.cycle, found.digest) == (CYCLE, client.latest(store.root).digest)
        assert found.published == manifest.timeliness.published
        assert len(catalog.products(found)) == 2
        assert layout.parse_forecast_prefix(manifest.prefix) == ("hres", CYCLE, 1)
