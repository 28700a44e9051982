"""A site on PostgreSQL and S3 with a server of Prefect, its workers and its deployments."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.plan import plan_file
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.publication import client
from tests.flows.held import QUIET_MINUTES, Held
from tests.flows.orchestra import Orchestra
from tests.pipeline.command import mosaic
from tests.pipeline.world import World, analyses, copy_of, write_source
from tests.servers import postgres_server, s3_server  # noqa: F401

SECRETS = {"AWS_SECRET_ACCESS_KEY": "s3-secret-of-tests", "WEBHOOK_SECRET": "hook-secret-of-tests"}
SETTINGS: dict[str, Any] = {"members": 4, "members_per_run": 2, "products": ["statistics", "maps"]}


def recent(count: int) -> list[Cycle]:
    """Cycles that are over, oldest first; those that are run have an analysis before them."""
    newest = Cycle.latest_before(datetime.now(UTC) - timedelta(hours=1))
    return [newest.shift(-6 * i) for i in reversed(range(count))]


@pytest.fixture(scope="session")
def cycles() -> list[Cycle]:
    """Three cycles of the last day, oldest first."""
    return recent(4)[1:]


def world_of(folder: Path, cycles: list[Cycle], **more: Any) -> World:
    """A site whose source has the analyses of some cycles and of the one before them."""
    folder.mkdir(parents=True)
    write_source(folder / "analyses.zarr", analyses(cycles[0].predecessor, len(cycles) + 1))
    settings = {**SETTINGS, **more.pop("settings", {})}
    return World(folder, settings=settings, **more)


def database(server: str) -> str:
    """URL of a new database."""
    import psycopg

    name = f"flows_{uuid.uuid4().hex}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{server}/{name}"


@pytest.fixture(scope="session")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    cycles: list[Cycle],
    s3_server: dict[str, str],  # noqa: F811
    postgres_server: str,  # noqa: F811
) -> World:
    """A site on PostgreSQL and S3."""
    url = database(postgres_server)
    with Catalog(url, check=False) as catalog:
        catalog.upgrade()
    folder = tmp_path_factory.mktemp("flows") / "world"
    events = {"webhook": "http://127.0.0.1:9/", "secret": "${WEBHOOK_SECRET}"}
    return world_of(
        folder, cycles, store=f"s3://forecasts/{uuid.uuid4().hex}",
        catalog=url, settings={"events": events},
    )  # fmt: skip


@pytest.fixture(scope="session")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deployments, with a forecast that can be held in its middle."""
    return plan_with_pause(tmp_path_factory.mktemp("plan"))


def plan_with_pause(folder: Path) -> Path:
    content = yaml.safe_load(plan_file().read_text())
    for entry in content["deployments"]:
        if entry["entrypoint"] == "flows.forecast.forecast":
            entry["entrypoint"] = "tests.flows.paused.forecast"
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@contextmanager
def performing(
    folder: Path, profile: str, plan: Path, s3: Mapping[str, str], postgres: str
) -> Iterator[Orchestra]:
    """A server with the deployments of a profile, schedules asleep, and a worker of each pool."""
    own = database(postgres).replace("postgresql://", "postgresql+asyncpg://")
    given = {
        **SECRETS,
        **s3,
        "MOSAIC_TEST_PAUSE": str(folder / "pause"),
        "PREFECT_API_DATABASE_CONNECTION_URL": own,
    }
    made = Orchestra(folder, given)
    try:
        made.start_server()
        made.deploy(profile, plan, "--paused")
        made.start_worker("cpu")
        made.start_worker("gpu")
        yield made
    finally:
        made.end()


@pytest.fixture(scope="session")
def orchestra(
    tmp_path_factory: pytest.TempPathFactory,
    site: World,
    plan: Path,
    s3_server: dict[str, str],  # noqa: F811
    postgres_server: str,  # noqa: F811
) -> Iterator[Orchestra]:
    """A server with the deployments of `site`."""
    # The S3 server of the tests takes any key; so there is a secret to look for.
    keys = {**s3_server, "AWS_SECRET_ACCESS_KEY": SECRETS["AWS_SECRET_ACCESS_KEY"]}
    folder = tmp_path_factory.mktemp("prefect")
    with performing(folder, site.profile, plan, keys, postgres_server) as made:
        yield made


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, s3_server: dict[str, str]) -> None:  # noqa: F811
    """What this process needs to read the store."""
    for name, value in s3_server.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory, cycles: list[Cycle]) -> World:
    """A site that has published nothing; to be copied, not used."""
    return site_to_kill(tmp_path_factory.mktemp("before") / "world", cycles[-1])


@pytest.fixture(scope="session")
def unbroken(before: World, cycles: list[Cycle], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the forecast that nobody disturbed."""
    world = copy_of(before, tmp_path_factory.mktemp("unbroken") / "world")
    outcome = mosaic("run", str(cycles[-1]), "-p", world.profile, "--json")
    assert outcome.code == 0, outcome.err
    return client.manifest(world.store).digest


@pytest.fixture
def held(
    orchestra: Orchestra, before: World, tmp_path: Path, cycles: list[Cycle], s3: None,
    postgres_server: str,  # noqa: F811
) -> Iterator[Held]:  # fmt: skip
    """A cycle in the middle of its rollout, of a site of its own on PostgreSQL and S3."""
    world = on_servers(before, tmp_path / "world", postgres_server)
    made = Held(orchestra, world, cycles[-1])
    try:
        yield made
    finally:
        made.go_on()


def site_to_kill(folder: Path, cycle: Cycle) -> World:
    """A site whose dead runs are soon seen."""
    settings = {"products": ["statistics"], "recovery": {"quiet_minutes": QUIET_MINUTES}}
    return world_of(folder, [cycle], settings=settings)


def on_servers(before: World, folder: Path, postgres: str) -> World:
    """A site with the same analyses, its catalog in a new database and its store on S3."""
    url = database(postgres)
    with Catalog(url, check=False) as catalog:
        catalog.upgrade()
    shutil.copytree(before.folder, folder)
    store = f"s3://forecasts/{uuid.uuid4().hex}"
    return World(folder, store, url, settings=dict(before.settings))
