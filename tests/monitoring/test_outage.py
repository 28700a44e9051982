"""Alerts go out while the catalog is away, once; it is told of them when it is back."""

from __future__ import annotations

import logging
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.monitoring.channels import Channel
from mosaic_core.monitoring.message import Message
from tests.monitoring.receivers import Receiver
from tests.monitoring.world import World, at
from tests.servers import free_port

CATALOG = "catalog-unreachable"
DISK = "disk-nearly-full"


def away() -> str:
    return f"postgresql://mosaic:topsecret-database@127.0.0.1:{free_port()}/mosaic"


def test_catalog_that_is_away_is_told_once_repeated_and_closed(
    world: World, pager: Receiver
) -> None:
    world.look(1)
    world.without_catalog(away())
    report = world.look(1.1)
    assert report.opened == [f"{CATALOG} watcher"]
    assert "cannot be reached" in report.catalog_problem
    for hours in (1.2, 1.3, 3):
        assert world.look(hours).opened == []
    assert pager.events() == [(CATALOG, "opened")]
    world.look(3.2)
    assert pager.events() == [(CATALOG, "opened"), (CATALOG, "repeated")]
    world.with_catalog()
    assert world.look(3.3).closed == [f"{CATALOG} watcher"]
    world.look(3.4)
    assert [event for _, event in pager.events()] == ["opened", "repeated", "closed"]
    assert len({event["data"]["key"] for event in pager.got}) == 1
    with world.catalog() as catalog:
        (alert,) = catalog.alerts(open_only=False)
        assert (alert.opened, alert.closed) == (at(1.1), at(3.3))
        assert {d.state for d in catalog.deliveries()} == {"delivered"}
    assert "topsecret" not in str(pager.got)


def test_other_alerts_go_out_during_the_outage_and_are_not_said_again_after_it(
    world: World, pager: Receiver
) -> None:
    world.look(1)
    world.without_catalog(away())
    world.free = 0.01
    world.look(1.1)
    world.with_catalog()
    world.look(1.2)
    assert sorted(pager.events()) == [
        (CATALOG, "closed"), (CATALOG, "opened"), (DISK, "opened"),
    ]  # fmt: skip
    assert world.open_kinds() == {DISK}
    world.free = 0.5
    world.look(1.3)
    assert pager.events()[-1] == (DISK, "closed")


def test_alert_that_was_open_before_the_outage_is_not_announced_anew(
    world: World, pager: Receiver
) -> None:
    world.free = 0.01
    world.look(1)
    world.without_catalog(away())
    world.look(1.1)
    world.free = 0.5
    world.look(1.2)
    assert pager.events() == [(DISK, "opened"), (CATALOG, "opened")]
    world.with_catalog()
    world.look(1.3)
    assert pager.events()[2:] == [(DISK, "closed"), (CATALOG, "closed")] or pager.events()[2:] == [
        (CATALOG, "closed"),
        (DISK, "closed"),
    ]


def test_message_that_did_not_arrive_in_the_outage_arrives_after_it(
    world: World, pager: Receiver
) -> None:
    world.look(1)
    world.without_catalog(away())
    pager.stop()
    assert world.look(1.1).undelivered[0].problem.startswith("ConnectError")
    world.with_catalog()
    world.look(1.2)
    assert world.open_kinds() == set()
    pager.start()
    world.look(1.3)
    assert pager.events() == [(CATALOG, "opened"), (CATALOG, "closed")]


def test_file_that_is_damaged_or_cannot_be_written_does_not_keep_alerts_back(
    world: World, pager: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    world.without_catalog(away())
    world.site.state.write_text('{"known": 3')
    world.look(1)
    assert pager.events() == [(CATALOG, "opened")]
    assert "cannot be read and is begun anew" in caplog.text
    world.site.state.unlink()
    world.site.state.mkdir()
    world.look(1.1)
    assert pager.events() == [(CATALOG, "opened")] * 2
    assert "cannot be written" in caplog.text


def test_catalog_of_another_schema_is_an_alert_too(world: World, pager: Receiver) -> None:
    (world.folder / "broken.db").write_bytes(b"no database" * 200)
    world.without_catalog(f"sqlite:///{world.folder}/broken.db")
    assert world.look(1).opened == [f"{CATALOG} watcher"]
    assert "no SQLite file" in pager.got[0]["data"]["text"]


def test_no_secret_is_in_rows_files_or_logs(
    world: World, pager: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "mosaic_core")
    world.free = 0.01
    world.look(1)
    pager.stop()
    world.free = 0.5
    world.look(1.1)
    world.without_catalog(away())
    world.look(1.2)
    texts = [caplog.text, world.site.state.read_text(), str(pager.got)]
    texts += [path.read_bytes().decode("latin-1") for path in world.folder.glob("catalog.db*")]
    with world.catalog() as catalog:
        texts += [str(vars(row)) for row in (*catalog.deliveries(), *catalog.events())]
        assert any("ConnectError" in d.problem for d in catalog.deliveries())
    assert not [text for text in texts if "topsecret" in text]


@pytest.mark.parametrize("quick", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("other", ["receiver", "catalog"])
def test_any_course_of_events_is_told_as_alternating_openings_and_closings(
    other: str, quick: bool, past: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The cause comes and goes, and so does the receiver or the catalog."""

    @settings(
        max_examples=3 if quick else 40, deadline=None, derandomize=quick, database=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.generate],
    )  # fmt: skip
    @given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=8))
    def check(course: list[tuple[bool, bool]]) -> None:
        folder = tmp_path_factory.mktemp("course") / "site"
        shutil.copytree(past, folder)
        told: list[tuple[str, str]] = []
        hearing = [True]

        def deliver(_channel: Channel, message: Message) -> str:
            if hearing[0]:
                told.append((message.kind, message.event))
            return "" if hearing[0] else "nobody there"

        site = World(folder, channels={"c": {"kind": "slack", "url": "http://c"}})
        nowhere = f"sqlite:///{folder}/catalog.db/none.db"
        for step, (full, there) in enumerate([*course, (False, True), (False, True)]):
            site.free = 0.01 if full else 0.5
            hearing[0] = there or other != "receiver"
            site.without_catalog(site.catalog_url if there or other != "catalog" else nowhere)
            site.look(1 + step / 60, deliver=deliver)
        for kind in (DISK, CATALOG):
            events = [event for k, event in told if k == kind]
            assert events == ["opened", "closed"] * (len(events) // 2), told
        fulls = [full for full, _ in course]
        if other == "receiver":
            begun = sum(full and not before for before, full in pairwise([False, *fulls]))
            assert told.count((DISK, "opened")) == begun
        assert told.count((DISK, "opened")) >= any(fulls)
        with Catalog(site.catalog_url) as catalog:
            assert catalog.alerts() == ()
            assert catalog.pending_deliveries() == ()

    check()
