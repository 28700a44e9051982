"""A forecast is published whole or not at all, whatever fails and dies when."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosaic_core.errors import IntegrityError, PublicationError, StoreError
from mosaic_core.publication import client, layout
from mosaic_core.publication.latest import move_latest, read_latest
from mosaic_core.publication.manifest import Manifest, Missing
from mosaic_core.publication.progress import InProgress, read_in_progress, write_in_progress
from mosaic_core.publication.publish import next_revision, publish
from mosaic_core.storage import ObjectStore, open_store
from tests.publication.helpers import CYCLE, NOW, FailingStore, draft, stage


@pytest.fixture
def store(object_store_url):
    return open_store(object_store_url)


def snapshot(store) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list()}


def test_published_forecast_is_found_opened_and_verified(store):
    done = publish(store, stage(store), now=NOW)
    assert done.outcome == "published"
    assert client.latest(store.root).order == (CYCLE, 1)
    assert float(client.open_forecast(store.root)["2m_temperature"].mean()) == 1.0
    report = client.verify(store.root)
    assert report.ok
    assert report.bytes == sum(asset.bytes for asset in done.manifest.assets)


def test_nothing_is_seen_before_the_manifest_is_there(store):
    stage(store)
    with pytest.raises(PublicationError, match="no forecast of hres is published"):
        client.latest(store.root)
    assert client.list_forecasts(store.root) == ()
    assert move_latest(store, "hres") is None


def test_publishing_again_changes_not_one_byte(store):
    wanted = stage(store)
    publish(store, wanted, now=NOW)
    before = snapshot(store)
    assert publish(store, wanted).outcome == "unchanged"
    assert snapshot(store) == before


def test_equal_rerun_is_dropped_and_another_one_is_a_new_revision(store):
    publish(store, stage(store), now=NOW)
    before = snapshot(store)
    assert next_revision(store, "hres", CYCLE) == 2
    assert publish(store, stage(store, revision=2), revision=2).outcome == "unchanged"
    assert snapshot(store) == before
    done = publish(store, stage(store, revision=2, content=2.0), revision=2)
    assert (done.outcome, done.manifest.revision) == ("published", 2)
    assert done.manifest.prefix.endswith("/00Z.r2")
    assert client.latest(store.root).order == (CYCLE, 2)
    assert client.manifest(store.root, CYCLE).revision == 2
    kept = {k: v for k, v in before.items() if "latest" not in k and not k.startswith("stac/")}
    assert {k: v for k, v in snapshot(store).items() if k in kept} == kept


def test_published_revision_cannot_become_another_forecast(store):
    wanted = stage(store)
    publish(store, wanted)
    other = dataclasses.replace(wanted, ensemble=dataclasses.replace(wanted.ensemble, seed=2))
    with pytest.raises(PublicationError, match="write the new one as revision 2"):
        publish(store, other)


def test_latest_never_moves_backwards(store):
    publish(store, stage(store, CYCLE))
    done = publish(store, stage(store, CYCLE.shift(-6)))
    assert done.outcome == "published"
    assert done.latest.cycle == CYCLE == read_latest(store, "hres").cycle


@settings(max_examples=12, deadline=None)
@given(st.permutations([(0, 1), (0, 2), (6, 1), (12, 1), (24 * 45, 1)]))
def test_latest_is_the_newest_after_any_order(tmp_path_factory, order):
    store = open_store(tmp_path_factory.mktemp("store"))
    seen = []
    for hours, revision in order:
        cycle = CYCLE.shift(hours)
        staged = stage(store, cycle, revision, content=float(revision))
        latest = publish(store, staged, revision=revision).latest
        seen.append((cycle, revision))
        assert latest.order == max(seen)


def test_concurrent_publishers_leave_the_newest_as_latest(store):
    cycles = [CYCLE.shift(6 * i) for i in range(4)]
    drafts = [stage(store, cycle) for cycle in cycles]
    with ThreadPoolExecutor(4) as pool:
        outcomes = [done.outcome for done in pool.map(lambda d: publish(store, d), drafts)]
    assert outcomes == ["published"] * 4
    assert client.latest(store.root).cycle == cycles[-1]


def test_two_publishers_of_one_forecast_publish_it_once(store):
    wanted = stage(store)
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda _: publish(store, wanted), range(2)))
    assert {d.manifest.digest for d in done} == {done[0].manifest.digest}
    assert client.verify(store.root).ok


def test_publisher_overtaken_by_another_leaves_what_that_one_published(store):
    wanted = stage(store)

    class Overtaken(ObjectStore):
        def put(self, key: str, data: bytes) -> None:
            if key.endswith(layout.CHECKSUMS):
                publish(store, wanted)
            super().put(key, data)

    assert publish(Overtaken(**vars(store)), wanted).outcome == "unchanged"
    assert client.verify(store.root).ok


def test_store_that_refuses_the_kth_write_shows_old_or_new_whole(store):
    publish(store, stage(store, CYCLE.shift(-6)))
    wanted = stage(store, content=7.0)
    write_in_progress(store, InProgress(CYCLE, "hres", 1, 2, 4, NOW))
    failures = 0
    for allowed in range(20):
        try:
            publish(FailingStore.over(store, allowed), wanted, now=NOW)
        except StoreError:
            failures += 1
        else:
            break
        seen = client.latest(store.root)
        assert seen.cycle in (CYCLE, CYCLE.shift(-6))
        assert client.verify(store.root).ok
    assert failures >= 3
    assert client.latest(store.root).cycle == CYCLE
    assert read_in_progress(store, "hres") is None


KILLED = """
import os, sys
from mosaic_core import storage
from mosaic_core.storage import open_store
from mosaic_core.publication.publish import publish
from tests.publication.helpers import draft, NOW
left = [int(sys.argv[2])]
when = sys.argv[3]

def deadly(name):
    real = getattr(storage.ObjectStore, name)
    def method(self, *args, **kwargs):
        if left[0] == 0 and when == "before":
            os.kill(os.getpid(), 9)
        result = real(self, *args, **kwargs)
        if left[0] == 0:
            os.kill(os.getpid(), 9)
        left[0] -= 1
        return result
    setattr(storage.ObjectStore, name, method)

for name in ("_write", "delete", "delete_all", "flush"):
    deadly(name)
publish(open_store(sys.argv[1]), draft(), now=NOW)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_publisher_killed_at_any_write_shows_old_or_new_whole(tmp_path, when):
    store = open_store(tmp_path / "store")
    publish(store, stage(store, CYCLE.shift(-6)))
    stage(store)
    kills = 0
    for allowed in range(20):
        done = subprocess.run(
            [sys.executable, "-c", KILLED, store.root, str(allowed), when],
            check=False,
            capture_output=True,
        )
        assert client.verify(store.root).ok
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        kills += 1
    assert kills >= 2
    assert publish(store, draft()).latest.cycle == CYCLE
    assert client.verify(store.root).ok


def test_kill_between_manifest_and_latest_is_mended_by_the_next_publish(store):
    publish(store, stage(store, CYCLE.shift(-6)))
    wanted = stage(store)
    with pytest.raises(StoreError):
        publish(FailingStore.over(store, 2), wanted)
    assert client.manifest(store.root, CYCLE).cycle == CYCLE
    assert client.latest(store.root).cycle == CYCLE.shift(-6)
    assert publish(store, wanted).outcome == "unchanged"
    assert client.latest(store.root).cycle == CYCLE


def test_damaged_latest_is_refused_by_readers_and_derived_again(store):
    wanted = stage(store)
    publish(store, wanted)
    store.put(layout.latest_key("hres"), b'{"schema_version": "1.0", "cycle"')
    with pytest.raises(IntegrityError, match="is not JSON"):
        client.latest(store.root)
    publish(store, wanted)
    assert client.latest(store.root).cycle == CYCLE


def test_asset_that_is_not_there_is_named(store):
    wanted = stage(store)
    store.delete(f"{layout.forecast_prefix('hres', CYCLE)}/maps/t2m.png")
    with pytest.raises(PublicationError, match=r"maps/t2m\.png is not in"):
        publish(store, wanted)
    assert next_revision(store, "hres", CYCLE) == 1


def test_unfinished_zarr_is_refused(store):
    wanted = stage(store)
    store.delete(f"{layout.forecast_prefix('hres', CYCLE)}/statistics.zarr/zarr.json")
    with pytest.raises(PublicationError, match="is no Zarr"):
        publish(store, wanted)


def test_asset_that_is_not_as_written_is_refused(store):
    wanted = stage(store)
    wrong = dataclasses.replace(wanted.assets[1], sha256="f" * 64)
    with pytest.raises(PublicationError, match=r"maps/t2m\.png has sha256"):
        publish(store, dataclasses.replace(wanted, assets=(wanted.assets[0], wrong)))


def test_object_of_no_asset_is_refused_or_discarded_by_name(store):
    wanted = dataclasses.replace(stage(store), missing=(Missing("grib", "disk full"),))
    store.put(f"{layout.forecast_prefix('hres', CYCLE)}/grib/part.grib2", b"half")
    store.put(f"{layout.forecast_prefix('hres', CYCLE)}/grib.sha256", b"of an earlier attempt")
    with pytest.raises(PublicationError, match=r"grib/part\.grib2"):
        publish(store, wanted)
    done = publish(store, wanted, discard=["grib"])
    assert done.manifest.missing == (Missing("grib", "disk full"),)
    assert client.verify(store.root).ok
    with pytest.raises(PublicationError, match=r"'grib'.*disk full"):
        client.open_forecast(store.root, product="grib")


def test_overlapping_assets_are_refused(store):
    wanted = stage(store)
    twice = dataclasses.replace(wanted, assets=(*wanted.assets, wanted.assets[1]))
    with pytest.raises(PublicationError, match="twice or overlaps"):
        publish(store, twice)


def test_manifest_is_read_as_written_and_sealed(store):
    manifest = publish(store, stage(store), now=NOW).manifest
    data = manifest.to_json()
    assert Manifest.from_json(data, "x") == manifest
    document = json.loads(data)
    document["timeliness"]["published"] = "2026-11-20T08:00:00Z"
    with pytest.raises(IntegrityError, match="was changed"):
        Manifest.from_json(json.dumps(document).encode(), "x")
    for i in range(0, len(data) - 1, 7):
        with pytest.raises((IntegrityError, PublicationError)):
            Manifest.from_json(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :], "x")


def test_unknown_major_version_is_refused_with_advice():
    with pytest.raises(PublicationError, match=r"schema version 2\.0.*install a release"):
        Manifest.from_json(b'{"schema_version": "2.0"}', "x")


def test_invalid_manifest_is_never_written(store):
    wanted = stage(store)
    bad = dataclasses.replace(wanted, ensemble=dataclasses.replace(wanted.ensemble, members=0))
    with pytest.raises(PublicationError, match=r"\$\.ensemble\.members"):
        publish(store, bad)
    assert client.list_forecasts(store.root) == ()


def test_sha256sum_reads_the_lists(tmp_path):
    store = open_store(tmp_path)
    prefix = publish(store, stage(store)).manifest.prefix
    command = ["sha256sum", "-c", "statistics.zarr.sha256"]
    subprocess.run(command, cwd=tmp_path / prefix, check=True, capture_output=True)
    victim = next((tmp_path / prefix / "statistics.zarr").rglob("c/*/*"))
    victim.write_bytes(os.urandom(victim.stat().st_size))
    assert subprocess.run(command, cwd=tmp_path / prefix, capture_output=True).returncode == 1


def test_progress_of_another_cycle_is_left_alone(store):
    write_in_progress(store, InProgress(CYCLE.shift(6), "hres", 1, 0, 4, NOW))
    publish(store, stage(store))
    assert read_in_progress(store, "hres").cycle == CYCLE.shift(6)
