"""What is measured is true, and what rules and panels ask for is measured."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from mosaic_core.cycle import Cycle
from mosaic_core.monitoring import metrics
from tests.conftest import ROOT
from tests.monitoring.world import CYCLE, SOURCE, VARIANT, World
from tests.servers import free_port

MONITORING = ROOT / "infra" / "monitoring"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(world: World) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text(world.site))
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


@pytest.fixture
def busy(world: World) -> World:
    """Two cycles published, one running after a failure, scores, an open alert."""
    world.publish(7)
    begun = CYCLE.shift(6)
    world.accept(7, begun)
    world.begin(7, "forecasting", "failed", cycle=begun, error="no GPU")
    world.begin(7.2, "forecasting", cycle=begun)
    with world.catalog(7.2) as catalog:
        catalog.claim(begun, VARIANT, "worker:1", ttl=10**9)
        catalog.open_alert("degraded", subject="x", severity="warning")
        for cycle, error in ((CYCLE, 1.5), (CYCLE.shift(-6), 9.0)):
            catalog.record_scores(
                [{
                    "cycle": cycle, "model": VARIANT, "lead_hours": 24, "variable": "temperature",
                    "level": 850, "region": "global", "metric": "rmse", "sum": error,
                    "weight": 1.0, "value": error, "truth_source": SOURCE,
                }]
            )  # fmt: skip
    world.look(7.3)
    return world


def test_metrics_say_what_happened(busy: World) -> None:
    found = samples(busy)
    assert value(found, "mosaic_catalog_up") == value(found, "mosaic_store_up") == 1
    published = CYCLE.init_time + timedelta(hours=7)
    last = value(found, "mosaic_last_success_timestamp_seconds", variant=VARIANT)
    assert last == published.timestamp()
    newest = value(found, "mosaic_newest_published_cycle_timestamp_seconds", variant=VARIANT)
    assert newest == CYCLE.init_time.timestamp()
    assert value(found, "mosaic_run_attempts_total", variant=VARIANT) == 4
    assert value(found, "mosaic_runs_published_total", variant=VARIANT) == 2
    assert value(found, "mosaic_newest_run_attempts", variant=VARIANT) == 2
    assert value(found, "mosaic_alerts_open", kind="degraded", severity="warning") == 1
    assert value(found, "mosaic_alerts_open", kind="not-published", severity="critical") == 0
    assert value(found, "mosaic_alert_messages_pending", channel="pager") == 0
    assert value(found, "mosaic_claim_age_seconds", variant=VARIANT) > 0
    assert value(found, "mosaic_watch_timestamp_seconds") == published.timestamp() + 0.3 * 3600
    assert value(found, "mosaic_ensemble_size", variant=VARIANT, what="members") == 2
    assert value(found, "mosaic_member_steps_per_second", variant=VARIANT) == 2 * 4 / 80
    assert value(found, "mosaic_published_bytes_total", variant=VARIANT, product="maps") > 0
    score = value(
        found, "mosaic_score", variant=VARIANT, metric="rmse", variable="temperature", level="850",
        region="global", lead_hours="24",
    )  # fmt: skip
    assert score == 1.5
    analysis = value(found, "mosaic_newest_analysis_timestamp_seconds", source=SOURCE)
    assert analysis == CYCLE.shift(6).init_time.timestamp()


OTHER = "era5"


def test_percentiles_and_shares_are_of_the_runs_of_the_last_30_days(world: World) -> None:
    now = datetime.now(UTC)
    cycles = [Cycle.latest_before(now).shift(-6 * i) for i in range(1, 6)]
    seconds = [10.0, 20.0, 30.0, 40.0, 50.0]
    for cycle, duration in zip(cycles, seconds, strict=True):
        with world.catalog() as catalog:
            catalog._clock = None
            run = catalog.start_run(cycle, OTHER, revision=1)
            for state in ("forecasting", "products", "publishing"):
                catalog.set_state(run, state)
            when = cycle.init_time + timedelta(seconds=100 * duration)
            catalog.set_state(run, "published", timings={"forecast": duration}, published=when)
    with world.catalog() as catalog:
        catalog._clock = None
        failed = catalog.start_run(cycles[0].shift(6), OTHER, revision=1)
        catalog.set_state(failed, "failed", error="no GPU")
    found = samples(world)
    stage = {"variant": OTHER, "stage": "forecast"}
    assert value(found, "mosaic_stage_seconds", **stage, percentile="50") == 30
    assert value(found, "mosaic_stage_seconds", **stage, percentile="95") == pytest.approx(48)
    assert value(found, "mosaic_stage_seconds", **stage, percentile="99") == pytest.approx(49.6)
    delay = {"variant": OTHER, "percentile": "50"}
    assert value(found, "mosaic_publication_delay_seconds", **delay) == 3000
    assert value(found, "mosaic_success_ratio", variant=OTHER) == pytest.approx(5 / 6)
    assert value(found, "mosaic_runs", variant=OTHER, state="failed") == 1


def test_site_that_is_away_reads_as_zero(world: World) -> None:
    world.without_catalog(f"postgresql://u:topsecret@127.0.0.1:{free_port()}/none")
    (world.folder / "store").rename(world.folder / "elsewhere")
    text = metrics.text(world.site)
    assert "mosaic_catalog_up 0.0" in text
    assert "mosaic_store_up 0.0" in text
    assert "topsecret" not in text


def used(expression: str) -> set[str]:
    return set(re.findall(r"\bmosaic_[a-z_]+\b", expression))


def rule_expressions() -> Iterator[str]:
    rules = yaml.safe_load((MONITORING / "rules" / "mosaic.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def panel_expressions() -> Iterator[str]:
    board = json.loads((MONITORING / "grafana" / "mosaic.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]


def test_every_metric_of_a_rule_or_panel_is_exported(busy: World) -> None:
    exported = {name for name, _ in samples(busy)}
    asked = {name for expression in (*rule_expressions(), *panel_expressions())
             for name in used(expression)}  # fmt: skip
    assert len(asked) > 15
    assert asked <= exported


def test_every_metric_that_is_exported_is_on_the_dashboard(busy: World) -> None:
    shown = {name for expression in panel_expressions() for name in used(expression)}
    assert {name for name, _ in samples(busy)} - shown == set()


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    board = json.loads((MONITORING / "grafana" / "mosaic.json").read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert not cells & taken, panel["title"]
        taken |= cells


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed (Debian: prometheus, prometheus-alertmanager)"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}, required in CI")
        pytest.skip(reason)
    return found


@pytest.mark.parametrize(
    "command",
    [
        ["promtool", "check", "config", "prometheus.yml"],
        ["promtool", "check", "rules", "rules/mosaic.yml"],
        ["promtool", "test", "rules", "rules/mosaic_test.yml"],
        ["amtool", "check-config", "alertmanager.yml"],
    ],
    ids=" ".join,
)
def test_tools_of_prometheus_accept_the_files(command: list[str]) -> None:
    program, *words = command
    done = subprocess.run(
        [tool(program), *words], cwd=MONITORING, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_is_tested() -> None:
    rules = yaml.safe_load((MONITORING / "rules" / "mosaic.yml").read_text())
    names = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    tests = yaml.safe_load((MONITORING / "rules" / "mosaic_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", ())
             if case["exp_alerts"]}  # fmt: skip
    assert fired == names


def test_exporter_answers_in_the_format_that_promtool_accepts(busy: World) -> None:
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=metrics.text(busy.site),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
