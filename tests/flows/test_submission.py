"""Errands: asked for once an attempt, until the work is done, whatever the server says or not."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from prefect.client.schemas.objects import State, StateType

from flows import submission
from flows.submission import Errand, bring_about
from mosaic_core.errors import ForecastError


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
