"""A store or a catalog that is away for a while does not fail a cycle; for too long, it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.errors import CatalogUnreachable, StoreError, StoreUnreachable
from mosaic_core.model import network
from mosaic_core.pipeline import patience
from mosaic_core.pipeline.patience import patiently
from mosaic_core.pipeline.run import run_cycle
from mosaic_core.publication import client
from mosaic_core.storage import ObjectStore, open_store
from mosaic_core.storage.zarr_store import TranslatingStore
from tests.pipeline.command import Fault, Running
from tests.pipeline.test_kills import published_bytes
from tests.pipeline.world import SECOND, STEPS, World
from tests.recovery.proxy import Proxy
from tests.recovery.sites import site_of
from tests.servers import free_port, postgres_server, s3_server

__all__ = ["postgres_server", "s3_server"]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(patience, "LONGEST_PAUSE", 0.05)


class Away:
    """Puts an error in the place of some calls of a method, from the `first` that fits."""

    def __init__(
        self, patch: pytest.MonkeyPatch, where: type, name: str, error: Exception,
        *, about: str = "", first: int = 1, calls: int = 3,
    ) -> None:  # fmt: skip
        original, self.seen = getattr(where, name), 0

        def maybe(*args: Any, **kwargs: Any) -> Any:
            if about in " ".join(str(a) for a in args[1:] if isinstance(a, str)):
                self.seen += 1
                if first <= self.seen < first + calls:
                    raise error
            return original(*args, **kwargs)

        patch.setattr(where, name, maybe)


@pytest.fixture
def steps_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each step that the model makes."""
    made: list[int] = []
    forward = network.Mosaic.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        made.append(1)
        return forward(*args, **kwargs)

    monkeypatch.setattr(network.Mosaic, "forward", counted)
    return made


STORE = StoreUnreachable("cannot write: the endpoint cannot be reached", "a store that works")
CATALOG = CatalogUnreachable("the catalog cannot be reached", "a running database")
OUTAGES: dict[str, tuple[type, str, Exception, str]] = {
    "store, in an analysis": (TranslatingStore, "set", STORE, "2m_temperature/c"),
    "store, in a window": (TranslatingStore, "set", STORE, "temperature/c/0/1/"),
    "store, in a marker": (ObjectStore, "put", STORE, "ensemble.progress"),
    "store, in a product": (TranslatingStore, "set", STORE, "temperature_standard_deviation/c/"),
    "store, at the manifest": (ObjectStore, "create", STORE, "manifest.json"),
    "store, at latest": (ObjectStore, "put", STORE, "latest.json"),
    "catalog, at the claim": (Catalog, "claim", CATALOG, ""),
    "catalog, at a state": (Catalog, "set_state", CATALOG, ""),
    "catalog, at a product": (Catalog, "record_product", CATALOG, ""),
    "catalog, at a note": (Catalog, "note_run", CATALOG, ""),
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_is_waited_out_and_the_cycle_ends_as_an_unbroken_one(
    outage: str, second: World, unbroken: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, name, error, about = OUTAGES[outage]
    away = Away(monkeypatch, where, name, error, about=about)
    report = run_cycle(site_of(second), SECOND)
    assert away.seen > 3
    assert (report.outcome, report.manifest.revision) == ("published", 1)
    assert published_bytes(second.store) == published_bytes(unbroken.store)
    assert client.verify(second.store).ok
    with Catalog(second.catalog) as catalog:
        (run,) = catalog.runs(cycle=SECOND)
        assert (run.state, run.error) == ("published", None)
        assert catalog.claims() == ()


def test_an_outage_that_lasts_fails_the_run_plainly_and_the_next_one_goes_on(
    second: World, unbroken: World, steps_made: list[int]
) -> None:
    second.write(patience_seconds=0.3)
    with pytest.MonkeyPatch.context() as patch:
        Away(patch, TranslatingStore, "set", STORE, about="temperature/c/0/1/", calls=10**6)
        with pytest.raises(StoreUnreachable):
            run_cycle(site_of(second), SECOND)
    with Catalog(second.catalog) as catalog:
        (run,) = catalog.runs(cycle=SECOND)
        assert run.state == "failed"
        assert "the endpoint cannot be reached" in str(run.error)
        assert catalog.claims() == ()
    before = len(steps_made)
    assert run_cycle(site_of(second), SECOND).outcome == "published"
    assert len(steps_made) - before == STEPS // 2  # the first window was kept
    assert published_bytes(second.store) == published_bytes(unbroken.store)


def test_what_time_cannot_cure_is_not_tried_again() -> None:
    calls = []

    def full() -> None:
        calls.append(1)
        raise StoreError("no space is left")

    with pytest.raises(StoreError, match="no space"):
        patiently(full, "work", 60)
    assert len(calls) == 1


def test_patience_ends_after_the_bound_and_begins_anew_when_the_work_went_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]

    def sleep(_: float) -> None:
        clock[0] += 10

    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep))
    written, calls = [0], [0]

    def work() -> None:
        calls[0] += 1
        clock[0] += 5
        written[0] = min(calls[0], 20)
        raise STORE

    with pytest.raises(StoreUnreachable):
        patiently(work, "work", 60, lambda: written[0])
    # Nothing more is written after the 20th call: four of 15 s each fit into the bound.
    assert calls[0] in (24, 25)


@contextmanager
def refusing_server(code: int) -> Iterator[str]:
    """URL of a server that answers everything with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_server_that_is_not_there_is_away_and_one_that_errs_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreUnreachable, match="cannot be reached"):
        open_store("s3://bucket/prefix").get("key")
    with refusing_server(503) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StoreUnreachable, match="overloaded or out of order"):
            open_store("s3://bucket/prefix").create("key", b"content")
    with refusing_server(501) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StoreError) as refused:
            open_store("s3://bucket/prefix").create("key", b"content")
        assert not isinstance(refused.value, StoreUnreachable)
    with pytest.raises(CatalogUnreachable, match="cannot be reached"):
        Catalog(f"postgresql://user:topsecret@127.0.0.1:{free_port()}/none")


@pytest.fixture
def proxies(s3_server: dict[str, str], postgres_server: str) -> Iterator[tuple[Proxy, Proxy]]:
    """The S3 server and PostgreSQL, each behind a proxy."""
    ports = (urlsplit(s3_server["AWS_ENDPOINT_URL"]).port, urlsplit(postgres_server).port)
    made = tuple(Proxy(int(port or 0)) for port in ports)
    yield made[0], made[1]
    for proxy in made:
        proxy.down()


@pytest.mark.slow
def test_a_network_that_is_away_for_a_minute_in_the_middle_of_a_rollout(
    tmp_path: Path, proxies: tuple[Proxy, Proxy], s3_server: dict[str, str],
    postgres_server: str, unbroken: World,
) -> None:  # fmt: skip
    """Store and catalog at once, of `mosaic run`; tests/flows kills each of them under Prefect."""
    import psycopg

    s3, database = proxies
    name = f"outage_{time.time_ns()}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    behind = f"{postgres_server}/{name}".replace(
        f":{urlsplit(postgres_server).port}/", f":{database.port}/"
    )
    with Catalog(behind, check=False) as catalog:
        catalog.upgrade()
    environment = {**s3_server, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3.port}"}
    world = World(tmp_path / "world", f"s3://forecasts/{name}", behind)
    reached = tmp_path / "reached"
    pause = Fault(
        "mosaic_core.model.network:Mosaic.forward", "pause", call=3, seconds=5, signal=str(reached)
    )
    running = Running(("run", str(SECOND), "-p", world.profile, "--json"), [pause], environment)
    end = time.monotonic() + 300
    while not reached.exists():
        assert running.process.is_alive()
        assert time.monotonic() < end
        time.sleep(0.05)
    for proxy in proxies:
        proxy.down()
    time.sleep(60)
    assert running.process.is_alive()
    for proxy in proxies:
        proxy.up()
    outcome = running.end()
    assert outcome.code == 0, outcome.err
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        assert published_bytes(world.store) == published_bytes(unbroken.store)
        assert client.verify(world.store).ok
    with Catalog(behind) as catalog:
        (run,) = catalog.runs(cycle=SECOND)
        assert (run.state, run.attempts, run.error) == ("published", 1, None)
