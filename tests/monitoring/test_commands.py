"""`mosaic watch`, `alerts`, `status` and `metrics` as an operator meets them."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from tests.monitoring.receivers import Receiver
from tests.monitoring.world import CYCLE, VARIANT, World
from tests.pipeline.command import Outcome, Running, mosaic
from tests.servers import free_port


@pytest.fixture
def words(world: World, pager: Receiver) -> list[str]:
    """Options that name the site; its alerts go to `pager`."""
    profile = {
        "name": "site", "model": "hres", "source": {"kind": "grib", "path": "/no/such/folder"},
        "store": world.site.profile.store, "catalog": world.catalog_url, "members": 2, "steps": 4,
        "cycle": "2026-11-20T00Z",
    }  # fmt: skip
    path = world.folder / "profile.yaml"
    path.write_text(yaml.safe_dump(profile))
    return ["-p", str(path)]


def run(*command: str, **environment: str) -> Outcome:
    given = {name: os.environ[name] for name in ("TEST_PAGER_URL", "TEST_PAGER_SECRET")}
    return mosaic(*command, environment={**given, **environment})


def alerts_of(world: World) -> list[str]:
    return ["--alerts", str(world.folder / "alerts.yaml")]


def test_test_really_sends_and_says_what_became_of_it(
    world: World, words: list[str], pager: Receiver
) -> None:
    sent = run("alerts", "test", *words, *alerts_of(world))
    assert sent.code == 0, sent.err
    assert sent.out.split() == ["pager", "sent"]
    assert pager.events() == [("test", "test")]
    pager.answer = 401
    refused = run("alerts", "test", *words, *alerts_of(world), "--json")
    assert refused.code == 10
    assert json.loads(refused.out) == {"pager": "answered 401"}
    unknown = run("alerts", "test", *words, *alerts_of(world), "--channel", "pagr")
    assert unknown.code == 2
    assert "did you mean 'pager'?" in unknown.err


def test_test_is_not_good_when_nobody_is_told(words: list[str]) -> None:
    names = [f"MOSAIC_ALERT_{name}" for name in ("WEBHOOK", "SLACK", "TEAMS", "MAIL_HOST")]
    outcome = run("alerts", "test", *words, **dict.fromkeys(names, ""))
    assert outcome.code == 10
    assert "off: url is empty (set MOSAIC_ALERT_SLACK)" in outcome.out
    assert "nobody is told of anything" in outcome.err


def test_watch_tells_and_alerts_are_listed_acknowledged_and_closed(
    world: World, words: list[str], pager: Receiver
) -> None:
    store = world.folder / "store"
    store.rename(world.folder / "elsewhere")
    watch = ["watch", *words, *alerts_of(world)]
    first = run(*watch)
    assert first.code == 0, first.err
    assert "opened: store-unreachable" in first.out
    listed = json.loads(run("alerts", "ls", *words, "--json").out)
    assert [(a["kind"], a["acknowledged"]) for a in listed] == [("store-unreachable", None)]
    number = str(listed[0]["number"])
    status = run("status", *words, "--json")
    assert status.code == 10
    assert json.loads(status.out)["problems"] == [
        "1 critical alerts that nobody has seen: `mosaic alerts ls`"
    ]
    assert "acknowledged" in run("alerts", "ack", number, *words).out
    assert run("status", *words).code == 0
    assert ", seen " in run("alerts", "ls", *words).out
    (world.folder / "elsewhere").rename(store)
    assert "closed: store-unreachable" in run(*watch, "--once").out
    assert run("alerts", "ls", *words).out.strip() == "no open alerts"
    assert "closed after" in run("alerts", "ls", *words, "--all").out
    assert pager.events() == [("store-unreachable", "opened"), ("store-unreachable", "closed")]
    assert run("alerts", "ack", "99", *words).code == 7


def test_status_shows_who_works_on_which_part_and_no_locks(world: World, words: list[str]) -> None:
    with Catalog(world.catalog_url) as catalog:
        for part in (-1, 0, 2):
            catalog.claim(CYCLE, VARIANT, "host:7", ttl=3600, part=part)
    said = f"{VARIANT} {CYCLE}"
    assert json.loads(run("status", *words, "--json").out)["running"] == [
        f"{said} by host:7", f"{said} part 2 by host:7",
    ]  # fmt: skip
    assert run("status", *words).out.count("running:") == 2


def test_watch_that_cannot_tell_is_not_good(
    world: World, words: list[str], pager: Receiver
) -> None:
    pager.stop()
    (world.folder / "store").rename(world.folder / "elsewhere")
    outcome = run("watch", *words, *alerts_of(world))
    assert outcome.code == 10
    assert "did not arrive: ConnectError" in outcome.err
    assert "not delivered: pager: ConnectError" in run("alerts", "ls", *words).out
    assert "topsecret" not in outcome.out + outcome.err


def test_watch_without_a_catalog_tells_and_is_not_good(
    world: World, words: list[str], pager: Receiver
) -> None:
    url = f"catalog=postgresql://u:topsecret@127.0.0.1:{free_port()}/none"
    outcome = run("watch", *words, *alerts_of(world), "--set", url, "--json")
    assert outcome.code == 10
    assert "cannot be reached" in json.loads(outcome.out)["catalog_problem"]
    assert pager.events() == [("catalog-unreachable", "opened")]
    assert "topsecret" not in outcome.out + outcome.err
    status = run("status", *words, "--set", url)
    assert status.code == 7
    assert "cannot be reached" in status.err
    assert "topsecret" not in status.err


def test_watch_goes_on_looking_until_it_is_ended(world: World, words: list[str]) -> None:
    given = {name: os.environ[name] for name in ("TEST_PAGER_URL", "TEST_PAGER_SECRET")}
    command = ["watch", *words, *alerts_of(world), "--every", "0.2"]
    running = Running(command, environment=given)
    try:
        seen: set[Any] = set()
        end = time.monotonic() + 60
        while len(seen) < 3 and time.monotonic() < end:
            with Catalog(world.catalog_url) as catalog:
                seen.add(catalog.pulses().get("watch"))
            time.sleep(0.1)
        assert len(seen) >= 3
    finally:
        running.process.terminate()
        running.end()


def test_status_of_a_site_where_nothing_has_run(tmp_path: Path) -> None:
    settings = [
        "--set", f"catalog=sqlite:///{tmp_path}/new.db", "--set", f"store={tmp_path}/store",
    ]  # fmt: skip
    outcome = mosaic("status", *settings)
    assert (outcome.code, outcome.out.strip()) == (
        0, "nothing has run yet: `mosaic demo` or `mosaic run`",
    )  # fmt: skip
    assert mosaic("status", *settings, "--max-age", "14").code == 10


def test_status_shows_stages_attempts_ages_and_what_failed(world: World, words: list[str]) -> None:
    good = run("status", *words, COLUMNS="200")
    assert good.code == 0, good.err
    for word in ("published", "forecast 80", "T+6:30", "newest published: hres 2026-11-19T18Z"):
        assert word in good.out
    with Catalog(world.catalog_url) as catalog:
        failed = catalog.start_run(Cycle.parse("2026-11-20T00Z"), "hres")
        catalog.set_state(failed, "failed", error="the [red] GPU is gone")
    bad = run("status", *words, COLUMNS="200")
    assert bad.code == 10
    assert "the [red] GPU is gone" in bad.out
    assert "the newest run, hres 2026-11-20T00Z r1, has failed" in bad.err


def test_metrics_are_printed_and_pushed(world: World, words: list[str], pager: Receiver) -> None:
    printed = run("metrics", *words, *alerts_of(world))
    assert printed.code == 0, printed.err
    assert 'mosaic_runs_published_total{variant="hres"} 1.0' in printed.out
    url = pager.url.replace("http://", "http://mosaic:topsecret@")
    assert run("metrics", *words, "--push", url).code == 0
    (body,), (headers,) = pager.bodies, pager.headers
    assert b"mosaic_last_success_timestamp_seconds" in body
    assert headers["Authorization"].startswith("Basic ")
    pager.stop()
    refused = run("metrics", *words, "--push", url)
    assert refused.code == 1
    assert "topsecret@" not in refused.err
    assert run("metrics", *words, "--listen", "nowhere").code == 2


def test_metrics_are_served_until_the_exporter_is_ended(world: World, words: list[str]) -> None:
    port = free_port()
    running = Running(["metrics", *words, "--listen", f"127.0.0.1:{port}"])
    try:
        end = time.monotonic() + 60
        text = ""
        while not text and time.monotonic() < end:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
                    text = page.read().decode()
            except OSError:
                time.sleep(0.1)
        assert "mosaic_catalog_up 1.0" in text
        assert "mosaic_store_up 1.0" in text
        taken = run("metrics", *words, "--listen", f"127.0.0.1:{port}")
        assert taken.code == 2
        assert "cannot listen" in taken.err
    finally:
        running.process.terminate()
        running.end()
