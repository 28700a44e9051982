"""A dead run of which nobody is left to tell is marked by the automation `mosaic-stale-run`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.events.schemas.automations import AutomationCore

from flows.plan import plan_file, read_plan
from tests.flows import held as kills
from tests.flows.held import Held
from tests.flows.orchestra import Orchestra, kill, until

pytestmark = pytest.mark.slow


@pytest.fixture
def sooner(orchestra: Orchestra) -> Iterator[None]:
    """The automation of the deployments' file, after 75 s without a heartbeat instead of 600 s."""
    (content,) = read_plan(plan_file()).automations
    given = {**content, "name": "sooner", "trigger": {**content["trigger"], "within": 75}}
    body = AutomationCore.model_validate(given).model_dump(mode="json")
    identity = orchestra.ask("automations/", body)["id"]
    yield
    orchestra.http.delete(f"automations/{identity}").raise_for_status()


def test_a_run_that_died_with_its_worker_is_marked_and_the_cycle_is_published(
    sooner: None, held: Held, unbroken: str
) -> None:
    """The dead run holds the only place in the queue until it is marked."""
    orchestra = held.orchestra
    (run,) = [r["id"] for r in orchestra.runs("forecast") if r["state_type"] == "RUNNING"]
    sign = {
        "event": {"name": ["prefect.flow-run.heartbeat"]},
        "resource": {"id": [f"prefect.flow-run.{run}"]},
    }
    until(lambda: orchestra.ask("events/filter", {"filter": sign})["events"], "a heartbeat")
    pids = [held.process_of(flow) for flow in ("run-cycle", "forecast")]
    kills.kill_worker_of_gpu(orchestra)
    for pid in pids:
        kill(pid)
    held.go_on()
    orchestra.start_worker("gpu")
    until(lambda: orchestra.run(run)["state_type"] == "CRASHED", "the automation")
    assert orchestra.run(run)["state"]["message"] == "No heartbeat for ten minutes"
    held.reconciled()
    held.require_published_once(unbroken, 2)
    held.require_nothing_left()
