"""A product that failed is made again without a new rollout; catalog and store come to agree."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.model import network
from mosaic_core.pipeline import steps
from mosaic_core.pipeline.agreement import Difference, differences
from mosaic_core.pipeline.reporting import note_progress
from mosaic_core.pipeline.run import run_cycle
from mosaic_core.pipeline.site import Site
from mosaic_core.publication import client, layout
from mosaic_core.publication.latest import read_latest
from mosaic_core.storage import open_store
from tests.pipeline.world import FIRST, SECOND, VARIANT, World
from tests.recovery.sites import digests, site_of
from tests.servers import object_store_url, s3_server

__all__ = ["object_store_url", "s3_server"]


def with_a_broken_product(site: Site, name: str) -> Site:
    def fail(*_: object) -> None:
        raise ValueError("made to fail")

    products = (dataclasses.replace(p, build=fail) if p.id == name else p for p in site.products)
    return dataclasses.replace(site, products=tuple(products))


def test_a_product_that_failed_is_made_in_a_new_revision_from_the_same_ensemble(
    tmp_path: Path, object_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"products": ["statistics", "spectra"]}
    world = World(tmp_path / "world", object_store_url, settings=settings)
    first = run_cycle(with_a_broken_product(site_of(world), "spectra"), FIRST)
    assert first.as_dict()["missing"] == {"spectra": "ValueError: made to fail"}
    before = digests(world.store)
    monkeypatch.setattr(network.Mosaic, "forward", None)  # a rollout would fail

    second = run_cycle(site_of(world), FIRST)

    assert (second.outcome, second.manifest.revision) == ("published", 2)
    assert second.as_dict()["missing"] == {}
    after = digests(world.store)
    assert set(after) == {*before, "spectra.zarr"}
    assert {key: after[key] for key in before} == before
    store = open_store(world.store)
    for revision in (1, 2):
        assert client.verify(store.url(layout.forecast_prefix(VARIANT, FIRST, revision))).ok
    with Catalog(world.catalog) as catalog:
        (event,) = catalog.events(kind="ensemble-reused")
        assert event.detail["source"] == first.manifest.prefix
    assert run_cycle(site_of(world), FIRST).outcome == "unchanged"


def test_a_copy_of_an_ensemble_that_was_cut_short_is_made_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_cycle(with_a_broken_product(site_of(world), "statistics"), FIRST)
    site = site_of(world)
    copy, copied = type(site.store).copy, []

    def interrupted(store: object, source: str, target: str) -> None:
        if len(copied) == 5:
            raise KeyboardInterrupt
        copied.append(target)
        copy(store, source, target)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(type(site.store), "copy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            steps.begin(site, FIRST, backfill=True)
    monkeypatch.setattr(network.Mosaic, "forward", None)
    assert run_cycle(site_of(world), FIRST).manifest.revision == 2
    assert client.verify(world.store).ok


def test_what_the_store_has_published_is_written_into_a_catalog_that_lost_it(
    second: World,
) -> None:
    Path(second.catalog.removeprefix("sqlite:///")).unlink()
    site = site_of(second)
    (found,) = differences(site, since=FIRST)
    assert (found.kind, found.mended) == ("unrecorded", False)
    assert site.catalog.runs() == ()
    (mended,) = differences(site, mend=True, since=FIRST)
    assert mended == dataclasses.replace(found, mended=True)
    (run,) = site.catalog.runs()
    manifest = client.manifest(second.store)
    assert (run.state, run.digest) == ("published", manifest.digest)
    assert {p.state for p in site.catalog.products(run)} == {"published"}
    assert differences(site, since=FIRST) == ()
    assert run_cycle(site, FIRST).outcome in ("unchanged", "published")


def test_pointers_that_are_behind_are_moved_and_notes_of_nobody_go(second: World) -> None:
    site = site_of(second)
    pointer = site.store.get(layout.latest_key(VARIANT))
    run_cycle(site, SECOND)
    note = note_progress(site, SECOND, 1, 2, None)
    site.store.put(layout.latest_key(VARIANT), pointer)
    found = differences(site, since=FIRST)
    assert [d.kind for d in found] == ["latest", "progress"]
    assert str(note.cycle) in found[1].text
    assert all(d.mended for d in differences(site, mend=True, since=FIRST))
    newest = read_latest(site.store, VARIANT)
    assert newest is not None
    assert newest.cycle == SECOND
    assert differences(site, since=FIRST) == ()


def test_what_cannot_be_mended_is_told_with_what_to_do(second: World) -> None:
    site = site_of(second)
    run_cycle(site, SECOND)
    key = layout.manifest_key(VARIANT, FIRST)
    site.store.delete(key)
    altered = layout.manifest_key(VARIANT, SECOND)
    site.store.put(altered, site.store.get(altered).replace(b"made-up", b"made-ip"))
    found = differences(site, mend=True, since=FIRST)
    kinds: dict[str, Difference] = {d.kind: d for d in found}
    assert {"lost", "unreadable"} <= set(kinds)
    assert not any(d.mended for d in found if d.kind in ("lost", "unreadable"))
    assert kinds["lost"].action == f"`mosaic run {FIRST}` makes it again"
