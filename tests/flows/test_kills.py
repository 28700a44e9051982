"""kill -9 in the middle of a rollout, of everything that runs it; the cycle is published once.

Only waiting times of the settings are scaled down: a run is taken for dead after a minute without
a sign instead of a quarter of an hour, and the reconciler comes at once instead of in five minutes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.events.schemas.automations import AutomationCore

from flows.plan import plan_file, read_plan
from tests.flows import held as kills
from tests.flows.held import ATTEMPTS, Held, Kill
from tests.flows.orchestra import Orchestra, kill, until

pytestmark = pytest.mark.slow
OF_PROCESSES = (
    kills.kill_forecast,
    kills.kill_run_cycle,
    kills.kill_both_flows,
    kills.kill_worker,
    kills.kill_worker_and_forecast,
    kills.kill_server_for_two_minutes,
)


@pytest.mark.parametrize("act", OF_PROCESSES, ids=lambda act: act.__name__)
def test_a_cycle_ends_published_once_and_as_an_unbroken_run_after(
    act: Kill, held: Held, unbroken: str
) -> None:
    act(held)
    held.require_published_once(unbroken, ATTEMPTS[act])
    held.require_nothing_left()


@pytest.fixture
def sooner(orchestra: Orchestra) -> Iterator[None]:
    """The automation of the deployments' file, after 75 s without a heartbeat instead of 600 s."""
    (content,) = read_plan(plan_file()).automations
    given = {**content, "name": "sooner", "trigger": {**content["trigger"], "within": 75}}
    body = AutomationCore.model_validate(given).model_dump(mode="json")
    identity = orchestra.ask("automations/", body)["id"]
    yield
    orchestra.http.delete(f"automations/{identity}").raise_for_status()


def test_a_run_of_which_nobody_is_left_to_tell_is_marked_by_the_automation(
    sooner: None, held: Held, unbroken: str
) -> None:
    """Worker, forecast and run-cycle are gone; the dead run holds the only place in the queue."""
    orchestra = held.orchestra
    (run,) = [r["id"] for r in orchestra.runs("forecast") if r["state_type"] == "RUNNING"]
    sign = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run}"]},
    }
    until(lambda: orchestra.ask("events/filter", {"filter": sign})["events"], "a heartbeat")
    flows = [held.process_of(flow) for flow in ("run-cycle", "forecast")]
    kills.kill_worker_of_gpu(orchestra)
    for pid in flows:
        kill(pid)
    held.go_on()
    orchestra.start_worker("gpu")
    until(lambda: orchestra.run(run)["state_type"] == "CRASHED", "the automation")
    assert orchestra.run(run)["state"]["message"] == "No heartbeat for ten minutes"
    held.reconciled()
    held.require_published_once(unbroken, 2)
    held.require_nothing_left()
