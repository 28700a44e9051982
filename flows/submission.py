"""Runs on other hosts: asked for once each, and again when they end without their work done.

What is done is asked of the catalog, not of Prefect: a server that is away delays a submission, and
nothing else. An idempotency key a cycle, part and attempt makes every submission safe to repeat.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.states import Crashed

from mosaic_core.errors import ForecastError

ATTEMPTS = 5
POLL_SECONDS = 2.0
_log = logging.getLogger(__name__)


def ask_for(
    deployment: str,
    parameters: dict[str, Any],
    key: str,
    tags: list[str],
    *,
    part_of_this_run: bool = True,
) -> FlowRun:
    """Ask for a run, or find the one that was asked for under the same key; not waited for."""
    found = run_deployment(
        deployment,
        parameters=parameters,
        idempotency_key=key,
        tags=tags,
        timeout=0,
        as_subflow=part_of_this_run,
    )
    return cast(FlowRun, found)


@dataclass
class Errand:
    """One piece of work for a deployment.

    Attributes:
        key: idempotency key of the work; `-1`, `-2` and so on are its attempts.
        done: whether the work is done, by the catalog and the store; None while they do not say.
        held: whether somebody holds the claim on it.
        quiet_seconds: a run that goes on for so long while nobody holds the claim is dead.
    """

    deployment: str
    key: str
    parameters: dict[str, Any]
    done: Callable[[], bool | None]
    held: Callable[[], bool]
    quiet_seconds: float
    tags: list[str] = field(default_factory=list)
    attempt: int = 1
    run: UUID | None = None
    sign: float = field(default_factory=time.monotonic)

    def look(self, attempts: int) -> bool:
        """Submit it, or see what became of it; whether it is done.

        Raises:
            ForecastError: every attempt has ended without the work done.
        """
        if self.done():
            return True
        state = self.submit() if self.run is None else self._state()
        if state is None or not self._over(state):
            return False
        done = self.done()
        if done is None or done:
            return bool(done)
        _log.warning("%s-%d ended as %s: %s", self.key, self.attempt, state.name, state.message)
        if self.attempt >= attempts:
            raise ForecastError(
                f"{self.deployment} ended {attempts} times without {self.key} done, at last as "
                f"{state.name}: {state.message}",
                "one attempt that comes through",
                "read the log of that run in the UI",
            )
        self.attempt, self.run = self.attempt + 1, None
        return False

    def submit(self) -> State | None:
        """Ask for the current attempt; its state, None when no server answers."""
        try:
            found = ask_for(
                self.deployment, self.parameters, f"{self.key}-{self.attempt}", self.tags
            )
        except Exception as error:  # whatever it is, it is tried again
            _log.warning("%s could not be asked for: %s", self.key, error)
            return None
        self.run, self.sign = found.id, time.monotonic()
        return found.state

    def _state(self) -> State | None:
        assert self.run is not None
        try:
            with get_client(sync_client=True) as client:
                return client.read_flow_run(self.run).state
        except Exception as error:
            _log.warning("the state of %s is not known: %s", self.key, error)
            return None

    def _over(self, state: State) -> bool:
        """Whether the run has ended, or its process has: it is taken up, and holds no claim."""
        if state.is_final():
            return True
        # A worker that dies between taking a run up and starting it leaves it pending for ever.
        if state.is_scheduled() or self.held():
            self.sign = time.monotonic()
            return False
        if time.monotonic() - self.sign < self.quiet_seconds:
            return False
        assert self.run is not None
        mark_crashed(self.run, f"Nobody has held the claim for {self.quiet_seconds:.0f} s")
        return True


def mark_crashed(run: UUID, message: str) -> None:
    """Free the place in the queue that a dead process holds."""
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Crashed(message=message))
    except Exception as error:  # whoever looks next tries again
        _log.warning("run %s could not be marked as crashed: %s", run, error)


def bring_about(
    errands: Iterable[Errand],
    seconds: float,
    attempts: int = ATTEMPTS,
    parallel: int | None = None,
    look: Callable[[], None] = lambda: None,
    give_up: Callable[[Errand, ForecastError], None] | None = None,
) -> None:
    """Wait until all errands are done, at most `parallel` of them asked for at the same time.

    Args:
        look: called at every poll.
        give_up: told of one that cannot be done, and the others go on; without it that is the end.

    Raises:
        ForecastError: one cannot be done, or it takes longer than `seconds`.
    """

    def is_over(errand: Errand) -> bool:
        try:
            return errand.look(attempts)
        except ForecastError as error:
            if give_up is None:
                raise
            give_up(errand, error)
            return True

    waiting, end = list(errands), time.monotonic() + seconds
    while True:
        under_way = waiting[:parallel]
        waiting = [e for e in under_way if not is_over(e)] + waiting[len(under_way) :]
        look()
        if not waiting:
            return
        if time.monotonic() > end:
            keys = ", ".join(errand.key for errand in waiting)
            raise ForecastError(
                f"{keys} not done after {seconds / 3600:.1f} h",
                "workers of the pool that take the runs up",
                "look at the pool and its workers in the UI",
            )
        time.sleep(POLL_SECONDS)
