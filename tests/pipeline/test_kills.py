"""kill -9 anywhere: readers see the old whole, and the next run goes on as if nothing had been."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.publication import client
from tests.pipeline.command import KILLED, Fault, Running, mosaic
from tests.pipeline.world import FIRST, SECOND, VARIANT, World, plain

CHUNK = "mosaic_core.storage.zarr_store:TranslatingStore.set"
STAGES = "mosaic_core.pipeline.stages"
PUBLISH = "mosaic_core.publication.publish"
KILLS = {
    "before ingest": Fault(f"{STAGES}:ingest"),
    "after ingest": Fault(f"{STAGES}:ingest", "kill-after"),
    "in the middle of a step": Fault("mosaic_core.model.network:Mosaic.forward", call=3),
    "inside a shard of the second window": Fault(CHUNK, about="temperature/c/0/1/"),
    "after the shards, before their marker": Fault(
        "mosaic_core.storage:ObjectStore.put", about="ensemble.progress"
    ),
    "after forecast": Fault(f"{STAGES}:forecast", "kill-after"),
    "inside a product": Fault(CHUNK, about="temperature_standard_deviation/c/"),
    "after products": Fault(f"{STAGES}:make_products", "kill-after"),
    "after the manifest, before latest": Fault(f"{PUBLISH}:move_latest"),
    "after latest": Fault(f"{PUBLISH}:move_latest", "kill-after"),
    "after publish, before the row": Fault(f"{STAGES}:publish_forecast", "kill-after"),
}
AFTER_THE_MANIFEST = list(KILLS)[list(KILLS).index("after the manifest, before latest") :]


def require_only_whole_forecasts(store: str, newest: set[str]) -> None:
    """What a reader can see now is whole, byte for byte, and the newest is one of `newest`."""
    assert client.latest(store).cycle.id in newest
    for manifest in client.list_forecasts(store):
        assert client.verify(store, manifest.cycle).ok
        assert client.open_forecast(store, manifest.cycle)["temperature"].notnull().all()


def published_bytes(store: str) -> dict[str, str]:
    return {asset.key: asset.sha256 for asset in client.manifest(store, SECOND).assets}


@pytest.mark.parametrize("where", KILLS)
def test_a_killed_cycle_is_taken_up_at_once_and_ends_as_an_unbroken_one(
    where: str, second: World, unbroken: World
) -> None:
    run = ("run", str(SECOND), "-p", second.profile, "--json")
    assert mosaic(*run, faults=[KILLS[where]]).code == KILLED
    published = where in AFTER_THE_MANIFEST
    newest = {FIRST.id, SECOND.id} if published else {FIRST.id}
    require_only_whole_forecasts(second.store, newest)

    outcome = mosaic(*run)

    assert outcome.code == 0, outcome.err
    assert plain(outcome.out)["outcome"] == ("unchanged" if published else "published")
    require_only_whole_forecasts(second.store, {SECOND.id})
    assert published_bytes(second.store) == published_bytes(unbroken.store)
    assert not Path(second.store, f"forecasts/v1/{VARIANT}/in-progress.json").exists()
    with Catalog(second.catalog) as catalog:
        (row,) = catalog.runs(cycle=SECOND)
        assert (row.state, row.revision) == ("published", 1)
        assert row.digest == client.manifest(second.store).digest
        assert {p.key: p.state for p in catalog.products(row)} == {
            "ensemble.zarr": "published",
            "statistics.zarr": "published",
        }
        assert catalog.claims() == ()
        events = catalog.events(cycle=SECOND, variant=VARIANT)
        story = [(e.kind, e.new) for e in events]
        # The dead run's claim ends before that of the run which finished the cycle.
        claims = [e.new for e in events if e.kind == "claim" and not e.detail.get("part")]
        assert claims == ["claimed", "released", "claimed", "released"]
        assert [new for kind, new in story if kind == "run"][-1] == "published"


@pytest.mark.parametrize(
    "where", ["mosaic_core.ensemble.written:seal", f"{STAGES}:publish_forecast"]
)
def test_what_was_computed_before_the_kill_is_not_computed_again(where: str, second: World) -> None:
    run = ("run", str(SECOND), "-p", second.profile, "--json")
    assert mosaic(*run, faults=[Fault(where)]).code == KILLED
    never = Fault("mosaic_core.model.network:Mosaic.forward")
    assert mosaic(*run, faults=[never]).code == 0


def test_the_claim_of_another_machine_is_waited_for(second: World) -> None:
    with Catalog(second.catalog) as catalog:
        catalog.claim(SECOND, VARIANT, "other-host:1@00000000", ttl=60)
    outcome = mosaic("run", str(SECOND), "-p", second.profile)
    assert outcome.code == 8
    assert "other-host:1@00000000" in outcome.err


def test_two_runs_at_once_one_publishes_and_the_other_says_who_holds_the_cycle(
    second: World, unbroken: World, tmp_path: Path
) -> None:
    words = ("run", str(SECOND), "-p", second.profile, "--json")
    reached = tmp_path / "reached"
    pause = Fault(f"{STAGES}:forecast", "pause", seconds=4, signal=str(reached))
    first = Running(words, [pause])
    while not reached.exists():
        assert first.process.is_alive()
        time.sleep(0.02)
    refused = mosaic(*words)
    assert refused.code == 8
    document = plain(refused.err)
    assert f":{first.process.pid}" in document["found"]
    assert document["action"]
    done = first.end()
    assert done.code == 0, done.err
    assert plain(done.out)["revision"] == 1
    assert published_bytes(second.store) == published_bytes(unbroken.store)
    with Catalog(second.catalog) as catalog:
        (row,) = catalog.runs(cycle=SECOND)
        assert (row.state, row.attempts) == ("published", 1)


def test_runs_started_at_the_same_moment_publish_once(second: World) -> None:
    words = ("run", str(SECOND), "-p", second.profile, "--json")
    running = [Running(words) for _ in range(3)]
    outcomes = [one.end() for one in running]
    assert {o.code for o in outcomes} <= {0, 8}
    told = [plain(o.out)["outcome"] for o in outcomes if o.code == 0]
    assert told.count("published") == 1
    assert [m.revision for m in client.list_forecasts(second.store)] == [1, 1]
    require_only_whole_forecasts(second.store, {SECOND.id})
