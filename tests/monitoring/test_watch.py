"""The right alert once, repeated in time, closed when its cause is gone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mosaic_core.publication import layout
from mosaic_core.publication.events import SIGNATURE_HEADER, sign
from tests.monitoring.receivers import Receiver
from tests.monitoring.world import CYCLE, SOURCE, VARIANT, World, at

ABOUT = f"{VARIANT} {CYCLE}"


def test_a_site_that_is_well_has_no_alerts(world: World, pager: Receiver) -> None:
    world.publish(7.1)
    for hours in (1, 7.5, 8.5, 11.9, 13):
        assert world.look(hours).open == []
    assert pager.got == []


def test_late_analysis_is_told_once_and_closed_when_it_comes(world: World, pager: Receiver) -> None:
    world.refuse(6.6, "AnalysisMissing", "no analysis of 00Z")
    assert world.look(7.9).open == []
    assert world.look(8.1).opened == [f"analysis-late {ABOUT}"]
    assert world.look(8.2).opened == []
    world.accept(8.5)
    assert world.look(8.6).closed == [f"analysis-late {ABOUT}"]
    assert pager.events() == [("analysis-late", "opened"), ("analysis-late", "closed")]
    opened, closed = pager.got
    assert opened["data"]["key"] == closed["data"]["key"]
    assert opened["id"] != closed["id"]
    assert "no analysis from grib 8 h after" in opened["data"]["text"]
    assert opened["data"]["runbook"].endswith("#analysis-late")


def test_analysis_that_never_comes_is_late_then_missing_and_the_cycle_not_published(
    world: World, pager: Receiver
) -> None:
    for hours in (7, 8, 8.5, 9, 9.2, 9.6, 10):
        world.look(hours)
    world.publish(7.1, CYCLE.shift(6))
    world.look(13.5)
    assert [e for e in pager.events() if e[1] == "opened"] == [
        ("analysis-late", "opened"),
        ("analysis-missing", "opened"),
        ("not-published", "opened"),
    ]
    assert world.open_kinds() >= {"analysis-late", "analysis-missing", "not-published"}
    world.publish(7.1, CYCLE.shift(12))
    world.publish(7.1, CYCLE.shift(18))
    world.look(24.1)
    assert world.open_kinds() == set()
    assert {kind for kind, event in pager.events() if event == "closed"} == {
        "analysis-late", "analysis-missing", "not-published",
    }  # fmt: skip


def test_broken_analysis_is_refused_by_name_not_late(world: World, pager: Receiver) -> None:
    world.refuse(6.7, "AnalysisRejected", "geopotential is in metres")
    assert world.look(6.8).opened == [f"checks-failed {ABOUT}"]
    world.refuse(6.9, "AnalysisRejected", "geopotential is in metres")
    assert world.look(8.7).opened == []
    assert "geopotential is in metres" in pager.got[0]["data"]["text"]
    world.publish(8.7)
    assert world.look(8.75).closed == [f"checks-failed {ABOUT}"]
    assert pager.events() == [("checks-failed", "opened"), ("checks-failed", "closed")]


def test_stage_that_fails_twice_is_told_and_closed_by_publication(
    world: World, pager: Receiver
) -> None:
    world.accept(7)
    world.begin(7.0, "forecasting", "failed", error="NaN at step 3")
    assert world.look(7.1).opened == []
    world.begin(7.2, "forecasting", "failed", error="NaN at step 4")
    assert world.look(7.3).opened == [f"stage-failed {ABOUT}"]
    text = pager.got[0]["data"]["text"]
    assert text == f"{ABOUT}: forecast has failed 2 times: NaN at step 4"
    for hours in (7.4, 7.5, 7.6):
        world.begin(hours, "forecasting", "failed", error="NaN at step 4")
    assert world.look(7.7).opened == [f"attempts-exhausted {ABOUT}"]
    world.publish(7.9)
    assert world.look(8).open == []


def test_ingest_that_fails_for_another_reason_is_a_failed_stage(world: World) -> None:
    for hours in (6.6, 6.8):
        world.refuse(hours, "StoreError", "the store is full")
    assert world.look(6.9).opened == [f"stage-failed {ABOUT}"]


@pytest.mark.parametrize("error", ["AnalysisMissing", "AnalysisRejected"])
def test_waiting_for_an_analysis_is_no_failed_stage(world: World, error: str) -> None:
    for step in range(6):
        world.refuse(6.5 + step / 10, error)
    assert {"stage-failed", "attempts-exhausted"} & set(world.look(7.5).opened) == set()
    assert world.open_kinds() <= {"checks-failed"}


def test_cycle_that_is_not_published_is_told_at_its_deadline_with_its_state(
    world: World, pager: Receiver
) -> None:
    world.accept(7)
    world.begin(9.4, "forecasting")
    assert world.look(9.45).open == []
    assert world.look(9.55).opened == [f"not-published {ABOUT}"]
    assert pager.got[0]["data"]["text"].endswith("9.5 h after its time: forecasting")


def test_cycle_that_is_left_out_on_purpose_is_not_waited_for(world: World) -> None:
    world.look(9.6)
    with world.catalog(9.7) as catalog:
        catalog.skip_run(CYCLE, VARIANT, 1, "a newer cycle is published")
    assert len(world.look(9.8).closed) == 3
    assert world.open_kinds() == set()


def test_new_site_is_asked_for_its_newest_due_cycle_alone(tmp_path: Path) -> None:
    site = World(tmp_path / "new")
    assert site.look(13).opened == [f"analysis-late {ABOUT}", f"analysis-missing {ABOUT}",
                                    f"not-published {ABOUT}"]  # fmt: skip


def test_profile_with_a_fixed_cycle_has_no_deadlines(tmp_path: Path) -> None:
    from dataclasses import replace

    site = World(tmp_path / "demo")
    site.site = replace(site.site, profile=replace(site.site.profile, cycle="2026-01-05T00Z"))
    assert site.look(13).opened == []


def test_run_that_nobody_works_on_is_told_until_it_is_taken_up(
    world: World, pager: Receiver
) -> None:
    world.accept(7)
    world.begin(7.0, "forecasting")
    with world.catalog(7.0) as catalog:
        claim = catalog.claim(CYCLE, VARIANT, "elsewhere:1", ttl=120)
    assert world.look(7.02).open == []
    assert world.look(7.2).open == []
    assert world.look(7.4).opened == [f"worker-dead {ABOUT}"]
    assert "last worker" in pager.got[0]["data"]["text"]
    with world.catalog(7.5) as catalog:
        catalog.claim(CYCLE, VARIANT, "another:2", ttl=3600)
    assert world.look(7.6).closed == [f"worker-dead {ABOUT}"]
    assert claim.owner == "elsewhere:1"


def test_cycle_in_a_queue_is_told_where_nobody_serves_it_and_not_behind_another(
    world: World,
) -> None:
    before = CYCLE.predecessor
    world.accept(7)
    world.begin(7.0, "forecasting")
    with world.catalog(7.0) as catalog:
        catalog.claim(CYCLE, VARIANT, "asks-for-parts:1", ttl=36000)
        part = catalog.claim(before, VARIANT, "has-the-gpu:2", ttl=36000, part=1)
    assert world.look(7.5).open == []
    with world.catalog(7.5) as catalog:
        catalog.release(part)
    assert world.look(7.55).opened == [f"worker-dead {ABOUT}"]
    with world.catalog(7.6) as catalog:
        catalog.claim(CYCLE, VARIANT, "has-the-gpu:2", ttl=36000, part=1)
    assert world.look(7.65).closed == [f"worker-dead {ABOUT}"]


def test_claim_that_is_held_for_hours_is_told(world: World) -> None:
    world.begin(7.0, "forecasting")
    with world.catalog(7.0) as catalog:
        for part in (0, 1):
            catalog.claim(CYCLE, VARIANT, "slow:1", ttl=36000, part=part)
    assert world.look(9.4).open == [f"analysis-late {ABOUT}"] or world.look(9.4).open == []
    assert f"claim-held-long {ABOUT}" in world.look(10.1).opened


def test_notice_that_did_not_arrive_is_told_without_the_secret_of_its_address(
    world: World, pager: Receiver
) -> None:
    world.publish(7)
    with world.catalog(7) as catalog:
        catalog.record_event(
            "notice-undelivered", "x", cycle=CYCLE, variant=VARIANT,
            problem="https://user:hidden@hook.example/T0/hidden?key=hidden: answered 500",
        )  # fmt: skip
    assert world.look(7.1).opened == [f"notice-undelivered {ABOUT}"]
    text = pager.got[0]["data"]["text"]
    assert "hook.example/... answered 500" in text
    assert "hidden" not in text
    assert world.look(13.1).closed == [f"notice-undelivered {ABOUT}"]


def test_degraded_publication_is_told_until_a_whole_one_follows(
    world: World, pager: Receiver
) -> None:
    world.publish(7.1, flags=("Degraded input: the analysis of 18Z",), missing="maps")
    assert world.look(7.2).opened == [f"degraded {ABOUT}"]
    assert "analysis of 18Z; no maps (no font)" in pager.got[0]["data"]["text"]
    world.publish(7.1, CYCLE.shift(6))
    assert world.look(13.2).closed == [f"degraded {ABOUT}"]


def test_what_is_published_and_damaged_is_told(world: World) -> None:
    key = layout.manifest_key(VARIANT, CYCLE.predecessor)
    good = world.store.get(key)
    world.store.put(key, good.replace(b'"hres"', b'"hrse"'))
    assert world.look(1).opened == [f"publication-damaged {VARIANT}"]
    world.store.put(key, good)
    assert world.look(1.1).closed == [f"publication-damaged {VARIANT}"]


def test_pointer_that_was_not_moved_is_told(world: World) -> None:
    latest = layout.latest_key(VARIANT)
    before = world.store.get(latest)
    world.publish(7)
    after = world.store.get(latest)
    world.store.put(latest, before)
    assert world.look(7.1).opened == []
    assert world.look(7.3).opened == [f"latest-behind {ABOUT}"]
    world.store.put(latest, after)
    assert world.look(7.4).closed == [f"latest-behind {ABOUT}"]


def test_store_that_is_away_is_told_and_takes_back_nothing_else(
    world: World, pager: Receiver
) -> None:
    world.publish(7.1, missing="maps")
    world.look(7.2)
    store = world.folder / "store"
    store.rename(world.folder / "elsewhere")
    (opened,) = world.look(7.3).opened
    assert opened.startswith("store-unreachable watcher ")
    assert world.open_kinds() == {"store-unreachable", "degraded"}
    (world.folder / "elsewhere").rename(store)
    assert world.look(7.4).closed == [opened]
    assert world.open_kinds() == {"degraded"}


def test_disk_that_is_nearly_full_is_told_by_host_and_path(world: World, pager: Receiver) -> None:
    world.free = 0.04
    (opened,) = world.look(1).opened
    assert opened == f"disk-nearly-full watcher {world.folder}/store bytes"
    assert "has 4.0 % of its bytes free" in pager.got[0]["data"]["text"]
    world.free = 0.2
    assert world.look(1.1).closed == [opened]


def scores(world: World, factor: float, days: range, variables: tuple[str, ...]) -> None:
    rows = [
        {
            "cycle": CYCLE.shift(-24 * day - 6 * quarter), "model": VARIANT, "lead_hours": 24,
            "variable": variable, "level": 500, "region": "global", "metric": "rmse",
            "sum": factor, "weight": 1.0, "value": factor * (1 + 0.05 * (day % 3)),
            "truth_source": SOURCE,
        }
        for day in days for quarter in range(4) for variable in variables
    ]  # fmt: skip
    with world.catalog(1) as catalog:
        catalog.record_scores(rows)


WATCHED_VARIABLES = ("geopotential", "temperature", "2m_temperature")


def test_drift_of_scores_is_told_and_one_bad_day_is_not(world: World, pager: Receiver) -> None:
    scores(world, 1.0, range(2, 37), WATCHED_VARIABLES)
    scores(world, 1.9, range(2, 3), WATCHED_VARIABLES)
    assert world.look(1).opened == []
    scores(world, 1.4, range(2, 8), WATCHED_VARIABLES[:2])
    assert world.look(1.1).opened == []
    scores(world, 1.4, range(2, 8), WATCHED_VARIABLES)
    assert world.look(1.2).opened == [f"verification-drift {VARIANT} rmse"]
    assert "in 3 of 3 series" in pager.got[0]["data"]["text"]
    scores(world, 1.0, range(2, 8), WATCHED_VARIABLES)
    assert world.look(1.3).closed == [f"verification-drift {VARIANT} rmse"]


def test_open_alert_is_repeated_after_its_interval_and_not_before(
    world: World, pager: Receiver
) -> None:
    world.free = 0.01
    for hours in (1, 2, 2.9):
        world.look(hours)
    assert len(pager.got) == 1
    for hours in (3.01, 3.5, 4.9, 5.1):
        world.look(hours)
    assert [event for _, event in pager.events()] == ["opened", "repeated", "repeated"]
    assert len({event["id"] for event in pager.got}) == 3


def test_acknowledged_alert_is_not_repeated_but_its_end_is_told(
    world: World, pager: Receiver
) -> None:
    world.free = 0.01
    world.look(1)
    with world.catalog(1.1) as catalog:
        (alert,) = catalog.alerts()
        assert pager.got[0]["data"]["number"] == alert.id
        catalog.acknowledge_alert(alert.id)
    for hours in (4, 8, 20):
        world.look(hours)
    world.free = 0.5
    world.look(21)
    mine = [event for kind, event in pager.events() if kind == "disk-nearly-full"]
    assert mine == ["opened", "closed"]


def test_messages_are_signed_with_the_shared_secret(world: World, pager: Receiver) -> None:
    world.free = 0.01
    world.look(1)
    assert pager.headers[0][SIGNATURE_HEADER] == sign("topsecret-shared", pager.bodies[0])


def test_messages_survive_a_receiver_that_is_gone_and_arrive_in_order(
    world: World, pager: Receiver
) -> None:
    pager.stop()
    world.free = 0.01
    report = world.look(1)
    assert report.undelivered[0].problem.startswith("ConnectError")
    world.free = 0.5
    assert len(world.look(1.1).undelivered) == 1
    pager.start()
    assert world.look(1.2).undelivered == []
    assert pager.events() == [("disk-nearly-full", "opened"), ("disk-nearly-full", "closed")]
    world.look(1.3)
    assert len(pager.got) == 2


def test_channel_that_refuses_does_not_hold_up_the_others_and_is_told_there(
    tmp_path: Path, pager: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.monitoring.receivers import receiver

    with receiver() as unwell:
        unwell.answer = 500
        monkeypatch.setenv("TEST_PAGER_URL", pager.url)
        monkeypatch.setenv("TEST_UNWELL_URL", unwell.url)
        site = World(
            tmp_path / "site",
            channels={
                "unwell": {"kind": "webhook", "url": "${TEST_UNWELL_URL}"},
                "pager": {"kind": "webhook", "url": "${TEST_PAGER_URL}"},
            },
        )
        site.publish_before()
        site.free = 0.01
        assert [o.channel for o in site.look(1).undelivered] == ["unwell"]
        assert site.look(1.1).opened == []
        assert site.look(1.3).opened == [f"alert-undelivered {VARIANT} unwell"]
        assert pager.events() == [("disk-nearly-full", "opened"), ("alert-undelivered", "opened")]
        assert "answered 500" in pager.got[1]["data"]["text"]
        assert site.look(4).opened == []
        unwell.answer = 204
        site.look(4.1)
        assert site.look(4.2).closed == [f"alert-undelivered {VARIANT} unwell"]
        assert {kind for kind, event in unwell.events() if event == "opened"} == {
            "disk-nearly-full", "alert-undelivered",
        }  # fmt: skip


def test_message_for_a_channel_that_is_gone_is_dropped_and_the_audit_says_so(
    world: World, pager: Receiver
) -> None:
    pager.answer = 500
    world.free = 0.01
    world.look(1)
    other = World(world.folder, channels={"other": {"kind": "slack", "url": pager.url}}, free=0.01)
    pager.answer = 204
    other.look(1.1)
    with world.catalog() as catalog:
        states = {d.channel: d.state for d in catalog.deliveries()}
        told = [e.detail for e in catalog.events(kind="alert") if "dropped" in e.detail]
    assert states["pager"] == "dropped"
    assert told == [
        {"channel": "pager", "dropped": "opened", "problem": "there is no channel 'pager' any more"}
    ]


def test_two_watchers_at_once_say_it_once(world: World, pager: Receiver, tmp_path: Path) -> None:
    world.free = 0.01
    others = [World(tmp_path / f"w{i}", world.catalog_url, world.channels, 0.01) for i in range(3)]
    ready = threading.Barrier(len(others))

    def look(watcher: World) -> None:
        from dataclasses import replace

        store = world.site.profile.store
        watcher.site = replace(watcher.site, profile=replace(watcher.site.profile, store=store))
        ready.wait()
        watcher.look(1)

    threads = [threading.Thread(target=look, args=(w,)) for w in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.look(1.05)
    assert pager.events() == [("disk-nearly-full", "opened")]


def test_alerts_of_another_variant_are_left_alone(world: World) -> None:
    with world.catalog(1) as catalog:
        catalog.open_alert("not-published", subject="hres-2 2026-11-19T00Z")
        catalog.open_alert("not-published", subject=f"{VARIANT} 2026-11-01T00Z")
    assert world.look(1.1).closed == [f"not-published {VARIANT} 2026-11-01T00Z"]
    assert world.open_kinds() == {"not-published"}


def test_alert_of_a_host_that_looks_no_more_lapses(world: World) -> None:
    with world.catalog(1) as catalog:
        catalog.open_alert("disk-nearly-full", subject="old-pod /data bytes")
    assert world.look(2).closed == []
    assert world.look(7.2).closed == ["disk-nearly-full old-pod /data bytes"]


def test_alert_that_other_code_opened_is_told_too(world: World, pager: Receiver) -> None:
    with world.catalog(1) as catalog:
        catalog.open_alert("flight-check-failed", subject="hres", text="it failed")
    world.look(1.1)
    world.look(1.2)
    assert pager.events() == [("flight-check-failed", "opened")]
    with world.catalog(2) as catalog:
        assert catalog.close_alert("flight-check-failed", "hres")
    world.look(2.1)
    assert pager.events()[-1] == ("flight-check-failed", "closed")


def test_look_leaves_a_pulse(world: World) -> None:
    world.look(3)
    with world.catalog() as catalog:
        assert catalog.pulses() == {"watch": at(3)}
