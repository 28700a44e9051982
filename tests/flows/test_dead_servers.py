"""kill -9 of the servers behind a site, for a minute in the middle of a rollout.

PostgreSQL holds the catalog and Prefect's own database, as in production; the S3 server is a real
one, whose objects outlive its gateway.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flows import held as kills
from tests.flows.conftest import performing
from tests.flows.held import ATTEMPTS, Held, Kill
from tests.flows.orchestra import Orchestra
from tests.infra.real_s3 import RealS3, real_s3_server
from tests.pipeline.world import World
from tests.servers import Postgres, private_postgres

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[Postgres]:
    with private_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def own_s3() -> Iterator[RealS3]:
    with real_s3_server() as server:
        server.make_bucket("forecasts")
        yield server


@pytest.fixture(scope="module")
def postgres_server(own_postgres: Postgres) -> str:
    return own_postgres.url


@pytest.fixture(scope="module")
def s3_server(own_s3: RealS3) -> dict[str, str]:
    return own_s3.environment


@pytest.fixture(scope="module")
def orchestra(
    tmp_path_factory: pytest.TempPathFactory, before: World, plan: Path,
    own_postgres: Postgres, own_s3: RealS3,
) -> Iterator[Orchestra]:  # fmt: skip
    """As that of the other tests, on servers of its own."""
    folder = tmp_path_factory.mktemp("prefect-of-servers")
    with performing(folder, before.profile, plan, own_s3.environment, own_postgres.url) as made:
        made.postgres, made.s3 = own_postgres, own_s3
        yield made


@pytest.mark.parametrize(
    "kill", [kills.kill_postgres_for_a_minute, kills.kill_s3_for_a_minute],
    ids=lambda kill: kill.__name__,
)  # fmt: skip
def test_a_cycle_ends_published_once_and_as_an_unbroken_run_after(
    kill: Kill, held: Held, unbroken: str
) -> None:
    kill(held)
    held.require_published_once(unbroken, ATTEMPTS[kill])
    held.require_nothing_left()
