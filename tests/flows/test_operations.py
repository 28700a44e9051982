"""A site run by Prefect: a real server and workers, PostgreSQL, an S3 server."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from infra import screenshots
from infra.screenshots import KINDS
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.publication import client
from tests.flows.conftest import SECRETS
from tests.flows.orchestra import Orchestra, until
from tests.pipeline.world import World
from tests.servers import free_port

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(orchestra: Orchestra, site: World, cycles: list[Cycle]) -> dict[str, Any]:
    """A cycle that was triggered and has come through."""
    return orchestra.completed(orchestra.trigger("run-cycle/tiny", cycle=str(cycles[1])))


def test_a_triggered_run_goes_from_analysis_to_published_in_parts_on_the_gpu_pool(
    orchestra: Orchestra, site: World, cycles: list[Cycle], run: dict[str, Any], s3: None
) -> None:
    cycle = cycles[1]
    manifest = client.manifest(site.store, cycle)
    assert client.verify(site.store, cycle).ok
    assert client.latest(site.store).cycle == cycle
    assert {asset.product for asset in manifest.assets} == {"ensemble", "statistics", "maps"}
    with Catalog(site.catalog) as catalog:
        (row,) = catalog.runs(cycle=cycle)
    assert (row.state, row.digest, row.attempts) == ("published", manifest.digest, 1)
    parts = [r for r in orchestra.runs("forecast") if str(cycle) in r["name"]]
    assert sorted(r["name"] for r in parts) == [f"{cycle} tiny r1 part {n}" for n in (1, 2)]
    assert {r["state_type"] for r in parts} == {"COMPLETED"}
    assert {r["work_pool_name"] for r in parts} == {"gpu"}


def test_an_operator_sees_what_came_of_it(
    orchestra: Orchestra, cycles: list[Cycle], run: dict[str, Any]
) -> None:
    assert run["name"] == f"{cycles[1]} tiny r1"
    assert {"mosaic", "cycle", "tiny", str(cycles[1])} <= set(run["tags"])
    shown = {a["key"]: a for a in orchestra.artifacts(run["id"])}
    summary = shown["tiny-summary"]["data"]
    assert "Good: published whole" in summary
    assert "Untrained weights: not a forecast" in summary
    assert str(cycles[1]) in summary
    products = json.loads(shown["tiny-products"]["data"])
    assert {row["product"] for row in products} == {"ensemble", "statistics", "maps"}
    pictures = [a for a in shown.values() if a["type"] == "image"]
    assert pictures
    for picture in pictures:
        kind, _, content = picture["data"].partition(",")
        assert kind == "data:image/webp;base64"
        assert base64.b64decode(content)[8:12] == b"WEBP"
    assert shown["tiny-progress"]["data"] == 100.0
    log = "\n".join(orchestra.logs(run["id"]))
    assert f"tiny {cycles[1]}: ingest took" in log
    assert "publish" in log


def test_a_browser_shows_summary_table_picture_and_progress(
    orchestra: Orchestra, run: dict[str, Any]
) -> None:
    if screenshots.chromium() is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is not installed (required in CI)")
        pytest.skip("Chromium is not installed")
    url, found = orchestra.url.removesuffix("/api"), orchestra.artifacts(run["id"])
    shown = {kind: next(a["id"] for a in found if a["type"] == kind) for kind in KINDS.values()}
    with screenshots.browser() as send:
        page = f"{url}/runs/flow-run/{run['id']}"
        screenshots.visit(send, page, screenshots.says("ingest took"))
        for name, kind in KINDS.items():
            where = f"{url}/artifacts/artifact/{shown[kind]}"
            screenshots.visit(send, where, screenshots.SHOWN[name])


def test_no_secret_is_in_logs_artifacts_events_or_manifests(
    orchestra: Orchestra, site: World, cycles: list[Cycle], run: dict[str, Any], s3: None
) -> None:
    secrets = [*SECRETS.values(), site.catalog.split("@")[0].rsplit(":", 1)[1]]
    said = json.dumps(
        [orchestra.ask("logs/filter", {"limit": 200, "offset": offset}) for offset in (0, 200)]
        + [orchestra.artifacts(), orchestra.runs(), orchestra.ask("deployments/filter", {})]
        + [orchestra.ask("task_runs/filter", {"limit": 200})]
    )
    assert str(cycles[1]) in said
    with Catalog(site.catalog) as catalog:
        said += str([vars(event) for event in catalog.events()])
        assert "notice-undelivered" in said
    for path in orchestra.folder.glob("*.log"):
        said += path.read_text(errors="replace")
    said += client.manifest(site.store, cycles[1]).to_json().decode()
    for secret in secrets:
        assert secret not in said


def test_of_two_runs_given_one_cycle_one_publishes_and_the_other_finds_it_done(
    orchestra: Orchestra, site: World, cycles: list[Cycle], run: dict[str, Any]
) -> None:
    cycle = str(cycles[2])
    both = [orchestra.trigger("run-cycle/tiny", cycle=cycle) for _ in range(2)]
    ended = [orchestra.completed(identity) for identity in both]
    with Catalog(site.catalog) as catalog:
        (row,) = catalog.runs(cycle=cycles[2])
        published = [e for e in catalog.events(cycle=cycles[2]) if e.new == "published"]
    assert row.state == "published"
    assert len([e for e in published if e.kind == "run"]) == 1
    assert {r["state_name"] for r in ended} <= {"Completed", "Unchanged"}


def test_a_superseded_or_late_scheduled_run_is_skipped_and_says_why(
    orchestra: Orchestra, site: World, cycles: list[Cycle], run: dict[str, Any]
) -> None:
    old = orchestra.trigger("run-cycle/tiny", cycle=str(cycles[0]))
    late = datetime.now(UTC) - timedelta(hours=7)
    deployment = orchestra.ask("deployments/name/run-cycle/tiny")["id"]
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": late.isoformat()}}
    created = orchestra.ask(f"deployments/{deployment}/create_flow_run", {"state": state})
    skipped = [orchestra.completed(identity) for identity in (old, created["id"])]
    assert [r["state_name"] for r in skipped] == ["Skipped", "Skipped"]
    assert "the newer cycle" in skipped[0]["state"]["message"]
    assert "the next cycle is due" in skipped[1]["state"]["message"]


def test_a_deployed_cron_has_scheduled_runs_at_the_four_times(
    orchestra: Orchestra, site: World, plan: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load(plan.read_text())
    for entry in content["deployments"]:
        if entry["entrypoint"] != "flows.cycle.run_cycle":
            entry.pop("schedules", None)  # those of every few minutes would run here
    only = tmp_path / "only.yaml"
    only.write_text(yaml.safe_dump(content))
    orchestra.deploy(site.profile, only)
    try:

        def times() -> set[str]:
            found = [r for r in orchestra.runs("run-cycle") if r["auto_scheduled"]]
            assert {r["state_type"] for r in found} <= {"SCHEDULED"}
            return {r["expected_start_time"][11:16] for r in found}

        until(lambda: times() == {"00:30", "06:30", "12:30", "18:30"}, "runs at the four times")
    finally:
        orchestra.deploy(site.profile, plan, "--paused")
    until(lambda: not [r for r in orchestra.runs("run-cycle") if r["auto_scheduled"]], "none left")


def test_redeploying_changes_nothing_and_removes_what_has_left_the_file(
    orchestra: Orchestra, site: World, plan: Path, tmp_path: Path
) -> None:
    def known() -> tuple[dict[str, Any], list[str]]:
        deployments = orchestra.ask("deployments/filter", {})
        automations = orchestra.ask("automations/filter", {})
        kept = ("id", "parameters", "job_variables", "entrypoint", "tags", "work_queue_name")
        return (
            {d["entrypoint"]: {key: d[key] for key in kept} for d in deployments},
            [a["id"] for a in automations],
        )

    before = known()
    assert len(before[0]) == 8
    orchestra.deploy(site.profile, plan, "--paused")
    assert known() == before
    content = yaml.safe_load(plan.read_text())
    gone = content["deployments"].pop()["entrypoint"]
    content["automations"] = []
    smaller = tmp_path / "smaller.yaml"
    smaller.write_text(yaml.safe_dump(content))
    said = orchestra.deploy(site.profile, smaller, "--paused")
    assert "removed deployment flight-check/tiny" in said
    assert "removed automation mosaic-stale-run" in said
    deployments, automations = known()
    assert gone not in deployments
    assert len(deployments) == 7
    assert automations == []
    orchestra.deploy(site.profile, plan, "--paused")
    queue = orchestra.ask("work_pools/gpu/queues/default")
    assert queue["concurrency_limit"] == 1


def test_the_flight_check_publishes_nowhere_public_and_leaves_nothing(
    orchestra: Orchestra, site: World, cycles: list[Cycle], run: dict[str, Any], s3: None
) -> None:
    newest = orchestra.trigger(
        "flight-check/tiny",
        overrides=[f"cycle={cycles[2]}", "products=[statistics]"],
        forecast_on="here",
    )
    orchestra.completed(newest)
    assert client.variants(site.store) == ("tiny",)
    assert client.list_forecasts(f"{site.store}/flight-check") == ()
    with Catalog(site.catalog) as catalog:
        assert catalog.runs(variant="flight-check")[0].state == "published"


def test_up_runs_a_cycle_and_ctrl_c_leaves_no_process(tmp_path: Path, cycles: list[Cycle]) -> None:
    world = World(tmp_path / "world")
    world.write(cycle="2026-03-28T12Z", members=2)
    port = free_port()
    words = ["up", "-p", world.profile, "--home", str(tmp_path / "home"), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "mosaic_core.cli", *words, "--run"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    family: list[psutil.Process] = []
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("2026-03-28T12Z tiny"):
                break
        assert "2026-03-28T12Z tiny r1: Completed" in said, said
        assert f"the UI is at http://127.0.0.1:{port}" in said
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=60).is_success
        assert client.verify(world.store).ok
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 3
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(120)
        process.stdout.close()
    _, left = psutil.wait_procs(family, timeout=10)
    assert not left
