"""Errands: asked for once an attempt, until the work is done, whatever the server says or not."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State, StateType

from flows import parts, submission
from flows.submission import Errand, bring_about
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CycleBusy, ForecastError
from mosaic_core.pipeline import claims
from mosaic_core.pipeline.recovery import Due
from tests.pipeline.command import mosaic
from tests.pipeline.world import FIRST, VARIANT, World
from tests.recovery.sites import site_of

AN_HOUR_AGO = datetime.now(UTC) - timedelta(hours=1)
reconcile: Any = importlib.import_module("flows.reconcile")


class Server:
    """Runs by idempotency key; `ends` says what becomes of each."""

    def __init__(self, ends: Callable[[str], StateType | None]) -> None:
        self.ends, self.asked, self.keys = ends, list[str](), dict[Any, str]()
        self.crashed: list[str] = []

    def ask_for(self, deployment: str, parameters: Any, key: str, tags: Any) -> Any:
        self.asked.append(key)
        kind = self.ends(key)
        if kind is None:
            raise ConnectionError("no server")
        identity = uuid.uuid4()
        self.keys[identity] = key
        return type("Run", (), {"id": identity, "state": State(type=kind)})()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read_flow_run(self, identity: Any) -> Any:
        return type("Run", (), {"state": State(type=self.ends(self.keys[identity]))})()

    def set_flow_run_state(self, identity: Any, state: State) -> None:
        self.crashed.append(self.keys[identity])


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Server]:
    def make(ends: Callable[[str], StateType | None]) -> Server:
        server = Server(ends)
        monkeypatch.setattr(submission, "ask_for", server.ask_for)
        monkeypatch.setattr(submission, "get_client", lambda sync_client: server)
        monkeypatch.setattr(submission, "POLL_SECONDS", 0)
        return server

    return make


def errand(key: str, done: Callable[[], bool], held: bool = True, quiet: float = 60) -> Errand:
    return Errand("forecast/tiny", key, {}, done, lambda: held, quiet)


def test_what_is_done_is_not_asked_for(serve: Callable[..., Server]) -> None:
    server = serve(lambda key: StateType.RUNNING)
    bring_about([errand("a", lambda: True)], 60)
    assert server.asked == []


def test_an_attempt_that_ends_without_the_work_done_is_followed_by_the_next(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda key: StateType.CRASHED if key < "a-3" else StateType.COMPLETED)
    bring_about([errand("a", lambda: "a-3" in server.asked)], 60)
    assert server.asked == ["a-1", "a-2", "a-3"]


def test_attempts_have_an_end_that_says_which_run_to_look_at(serve: Callable[..., Server]) -> None:
    server = serve(lambda key: StateType.FAILED)
    with pytest.raises(ForecastError, match="forecast/tiny ended 2 times without a done"):
        bring_about([errand("a", lambda: False)], 60, attempts=2)
    assert server.asked == ["a-1", "a-2"]


def test_a_server_that_is_away_is_asked_again_under_the_same_key(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda key: None if len(server.asked) < 3 else StateType.RUNNING)
    bring_about([errand("a", lambda: len(server.asked) >= 3)], 60)
    assert server.asked == ["a-1", "a-1", "a-1"]


def test_a_run_of_which_nobody_holds_the_claim_is_dead_and_frees_its_place(
    serve: Callable[..., Server],
) -> None:
    server = serve(lambda key: StateType.RUNNING)
    bring_about([errand("a", lambda: "a-2" in server.asked, held=False, quiet=0.2)], 60)
    assert server.crashed == ["a-1"]
    assert server.asked == ["a-1", "a-2"]


@pytest.mark.parametrize("kind", [StateType.PENDING, StateType.CANCELLING])
def test_a_run_that_was_taken_up_and_never_began_is_dead_too(
    kind: StateType, serve: Callable[..., Server]
) -> None:
    server = serve(lambda key: kind if key == "a-1" else StateType.COMPLETED)
    bring_about([errand("a", lambda: "a-2" in server.asked, held=False, quiet=0.2)], 60)
    assert (server.asked, server.crashed) == (["a-1", "a-2"], ["a-1"])


def test_a_run_that_ended_is_not_repeated_while_nobody_knows_what_it_did(
    serve: Callable[..., Server],
) -> None:
    server, said = serve(lambda key: StateType.COMPLETED), iter([False, None, None, None, True])
    bring_about([Errand("forecast/tiny", "a", {}, lambda: next(said), lambda: True, 60)], 60)
    assert server.asked == ["a-1"]


def test_a_run_in_a_queue_is_not_dead_however_long(serve: Callable[..., Server]) -> None:
    server, polls = serve(lambda key: StateType.SCHEDULED), list[int]()
    waits = errand("a", lambda: len(polls) > 30, held=False, quiet=0.0)
    bring_about([waits], 60, look=lambda: polls.append(1))
    assert (server.asked, server.crashed) == (["a-1"], [])


def test_of_many_errands_one_that_cannot_be_done_does_not_hold_up_the_others(
    serve: Callable[..., Server],
) -> None:
    server, given_up = serve(lambda key: StateType.FAILED), list[str]()
    errands = [errand(name, lambda name=name: name == "b") for name in ("a", "b", "c")]  # type: ignore[misc]
    bring_about(
        errands, 60, attempts=2, parallel=1, give_up=lambda e, error: given_up.append(e.key)
    )
    assert given_up == ["a", "c"]
    assert server.asked == ["a-1", "a-2", "c-1", "c-2"]


def asked(state: State | None) -> Any:
    return type("Run", (), {"id": uuid.uuid4(), "name": "loud-owl", "state": state})()


@pytest.mark.parametrize(
    ("state", "counted", "crashed"),
    [
        (None, False, False),
        (State(type=StateType.SCHEDULED), False, False),
        (State(type=StateType.PENDING), False, False),
        (State(type=StateType.PENDING, timestamp=AN_HOUR_AGO), True, True),
        (State(type=StateType.RUNNING, timestamp=AN_HOUR_AGO), False, False),
        (State(type=StateType.CRASHED), True, False),
    ],
)
def test_an_attempt_that_a_worker_took_with_it_is_counted_and_not_waited_for(
    state: State | None, counted: bool, crashed: bool, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    site, lost, marked = site_of(World(tmp_path / "world")), list[str](), list[Any]()
    monkeypatch.setattr(reconcile, "ask_for", lambda *_, **__: asked(state))
    monkeypatch.setattr(reconcile, "mark_crashed", lambda run, message: marked.append(message))
    monkeypatch.setattr(
        reconcile.recovery, "count_lost_attempt", lambda site, due, reason: lost.append(reason)
    )
    due = Due(Cycle.parse("2026-11-20T00Z"), 2, "tiny-20261120T00Z-2", "attempt 1 failed")
    reconcile.start(site, due, {"profile": "p", "overrides": []})
    assert (bool(lost), bool(marked)) == (counted, crashed)


def refused_once(
    claim: Callable[..., Any], refused: list[CycleBusy], catalog: Catalog, other: Any
) -> Callable[..., Any]:
    """Claiming that fails while another run holds the cycle, which lets go after that."""

    def attempt(*given: Any) -> Any:
        try:
            return claim(*given)
        except CycleBusy as error:
            refused.append(error)
            catalog.release(other)
            raise

    return attempt


def test_another_run_that_has_taken_the_cycle_up_meanwhile_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world, there, refused = World(tmp_path / "world"), list[Any](), list[CycleBusy]()
    assert mosaic("run", str(FIRST), "-p", world.profile).code == 0
    monkeypatch.setattr(parts, "bring_about", lambda errands, *_, **__: there.extend(errands))
    monkeypatch.setattr(parts, "rollout_shown", lambda *_: nullcontext())
    with Catalog(world.catalog) as catalog:
        other = catalog.claim(FIRST, VARIANT, "other-host:1", ttl=60)
        monkeypatch.setattr(claims, "_claim", refused_once(claims._claim, refused, catalog, other))
        parts.forecast_on_pool.fn(world.profile, [], str(FIRST), 1, 1)
        assert catalog.claims() == ()
    assert len(refused) == 1
    assert there == []


def test_no_more_are_asked_for_at_a_time_than_allowed(serve: Callable[..., Server]) -> None:
    server, polls = serve(lambda key: StateType.RUNNING), list[int]()

    def one(name: str) -> Errand:
        return errand(name, lambda: f"{name}-1" in server.asked and len(polls) > 2 * len(name))

    names = ["a", "aa", "aaa"]
    bring_about(
        [one(name) for name in names], 60, parallel=1, look=lambda: polls.append(len(server.asked))
    )
    assert server.asked == ["a-1", "aa-1", "aaa-1"]
    assert polls[0] == 1


def test_patience_has_an_end(serve: Callable[..., Server]) -> None:
    serve(lambda key: StateType.SCHEDULED)
    with pytest.raises(ForecastError, match="a not done"):
        bring_about([errand("a", lambda: False)], -1)
