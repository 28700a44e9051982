"""kill -9 in the middle of a rollout, of everything that runs it; the cycle is published once.

Only waiting times of the settings are scaled down: a run is taken for dead after a minute without
a sign instead of a quarter of an hour, and the reconciler comes at once instead of in five minutes.
"""

from __future__ import annotations

import pytest

from tests.flows import held as kills
from tests.flows.held import ATTEMPTS, Held, Kill

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
