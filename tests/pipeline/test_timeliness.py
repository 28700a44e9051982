"""When lead times can be read, as the manifest and the notices have it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from mosaic_core.publication import client
from mosaic_core.publication.manifest import Manifest, Timeliness
from mosaic_core.storage import open_store
from tests.monitoring.receivers import receiver
from tests.pipeline.command import KILLED, Fault, mosaic
from tests.pipeline.world import FIRST, STEPS, World

UNSEALED = Fault("mosaic_core.ensemble.written:seal")
NO_PRODUCT = Fault("mosaic_core.products.product:write", "refuse")


def written_at(world: World, manifest: Manifest) -> datetime:
    """When the last chunk of the temperature of a forecast was written."""
    chunks = open_store(world.store).list(f"{manifest.prefix}/ensemble.zarr/temperature/c")
    return max(info.modified for info in chunks)


def moments(times: Timeliness) -> tuple[datetime, datetime, datetime]:
    assert times.started is not None
    assert times.first_step is not None
    assert times.published is not None
    return times.started, times.first_step, times.published


def test_a_forecast_of_one_window_can_be_read_when_it_is_written_not_when_it_was_started(
    world: World,
) -> None:
    with receiver() as subscriber:
        world.write(window=2 * STEPS, events={"webhook": subscriber.url})
        words = ("run", str(FIRST), "-p", world.profile, "--json")
        assert mosaic(*words, faults=[UNSEALED]).code == KILLED
        assert subscriber.got == []
        assert mosaic(*words, faults=[NO_PRODUCT]).code == 0
        first = client.manifest(world.store)
        assert mosaic(*words).code == 0
        second = client.manifest(world.store)
    assert (first.revision, second.revision) == (1, 2)
    for manifest in (first, second):
        started, readable, published = moments(manifest.timeliness)
        assert started < readable < published
        assert written_at(world, manifest) <= readable
    assert moments(second.timeliness)[1] > moments(first.timeliness)[2]
    told = [(event["type"].split(".")[-2], event["data"]) for event in subscriber.got]
    assert [(kind, data["revision"]) for kind, data in told] == [
        ("first-steps", 1), ("published", 1), ("first-steps", 2), ("published", 2),
    ]  # fmt: skip
    early: list[dict[str, Any]] = [data for kind, data in told if kind == "first-steps"]
    assert all(data["readable_lead_hours"] == [6, 12, 18, 24] for data in early)
