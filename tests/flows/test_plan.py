"""The deployments' file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from flows.plan import Plan, plan_file, read_plan
from flows.reference import cycle_of, fingerprint, site_of
from mosaic_core.errors import ConfigurationError
from mosaic_core.profile import Profile
from tests.pipeline.world import World


@pytest.fixture(scope="module")
def plan() -> Plan:
    return read_plan(plan_file())


def test_the_gpu_queue_takes_one_run_at_a_time(plan: Plan) -> None:
    pools = {pool.name: pool for pool in plan.work_pools}
    assert pools["gpu"].queues == {"default": 1}
    assert pools["cpu"].queues == {"default": None}


def test_every_job_outlives_its_worker_and_gives_signs(plan: Plan) -> None:
    for entry in plan.deployments:
        variables = entry.work_pool.job_variables
        assert variables["stream_output"] is False
        assert variables["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"


def test_only_the_forecast_takes_a_gpu(plan: Plan) -> None:
    pools = {entry.entrypoint: entry.work_pool.name for entry in plan.deployments}
    assert [name for name, pool in pools.items() if pool == "gpu"] == ["flows.forecast.forecast"]


def test_an_unknown_key_is_refused_by_name(tmp_path: Path) -> None:
    content = yaml.safe_load(plan_file().read_text())
    content["deployments"][0]["shedules"] = []
    path = tmp_path / "prefect.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigurationError, match="shedules"):
        read_plan(path)


@pytest.mark.parametrize(
    ("scheduled", "cycle"),
    [("00:30", "2026-11-19T18Z"), ("06:30", "2026-11-20T00Z"), ("12:30", "2026-11-20T06Z"),
     ("18:30", "2026-11-20T12Z"), ("12:29", "2026-11-20T06Z"), ("06:45", "2026-11-20T00Z")],
)  # fmt: skip
def test_a_scheduled_time_says_which_cycle_it_is_for(scheduled: str, cycle: str) -> None:
    profile = Profile("p", "m", {}, "s", "c", 1, 1)
    time = datetime.fromisoformat(f"2026-11-20T{scheduled}").replace(tzinfo=UTC)
    assert str(cycle_of(profile, None, time)) == cycle
    assert str(cycle_of(profile, "2026-01-01T00Z", time)) == "2026-01-01T00Z"


def test_a_site_can_publish_under_another_name(tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    assert site_of(world.profile, []).config.name == "tiny"
    other = site_of(world.profile, ["variant=flight-check", "members=1"])
    assert (other.config.name, other.profile.members) == ("flight-check", 1)
    assert fingerprint("a", []) != fingerprint("a", ["members=1"])
