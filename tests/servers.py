"""Real servers on loopback for the tests: an S3 server (moto) and PostgreSQL.

`object_store_url` runs a test on a folder and on S3, `database_url` on SQLite and PostgreSQL.
Where PostgreSQL is not installed its tests are skipped, and fail under CI.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

S3_ENVIRONMENT = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what} (required in CI)")
    pytest.skip(what)


def _wait_for_port(port: int, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on port {port} after {seconds} s")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, str]]:
    """Environment of an S3 server with the bucket `forecasts`.

    The one that MOSAIC_TEST_S3_ENDPOINT names (credentials from the environment), else moto's.
    """
    import boto3

    given = os.environ.get("MOSAIC_TEST_S3_ENDPOINT")
    port = free_port()
    environment = {
        "AWS_ENDPOINT_URL": given or f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": os.environ.get("AWS_ACCESS_KEY_ID", "test") if given else "test",
        "AWS_SECRET_ACCESS_KEY": os.environ.get("AWS_SECRET_ACCESS_KEY", "") if given else "test",
        "AWS_REGION": "us-east-1",
    }
    process = None
    if not given:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )
    try:
        if process is not None:
            _wait_for_port(port, process)
        client = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        )
        client.create_bucket(Bucket="forecasts")
        client.close()
        yield environment
    finally:
        if process is not None:
            process.terminate()
            process.wait(10)


@pytest.fixture(params=["folder", "s3"])
def object_store_url(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Root of an empty store of its own."""
    if request.param == "folder":
        return str(tmp_path / "store")
    for name, value in request.getfixturevalue("s3_server").items():
        monkeypatch.setenv(name, value)
    return f"s3://forecasts/{uuid.uuid4().hex}"


def _postgres_program(name: str) -> str | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    return shutil.which(name, path=path)


def _unprivileged() -> list[str]:
    """Words before a command that run it as somebody else than root, whom PostgreSQL refuses."""
    if os.geteuid() != 0:
        return []
    for user in ("postgres", "nobody"):
        try:
            pwd.getpwnam(user)
        except KeyError:
            continue
        return ["runuser", "-u", user, "--"]
    return []


class Postgres:
    """A private cluster on loopback, which can be killed and started again.

    Attributes:
        url: without a database at its end.
    """

    def __init__(self) -> None:
        initdb = _postgres_program("initdb")
        if initdb is None or _postgres_program("postgres") is None:
            _missing("PostgreSQL's initdb and postgres are not installed")
        self.home, self.port = Path(tempfile.mkdtemp(prefix="mosaic-postgres-")), free_port()
        self.url = f"postgresql://mosaic:secret-of-tests@127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        password = self.home / "password"
        password.write_text("secret-of-tests\n")
        if before := _unprivileged():
            for path in (self.home, password):
                shutil.chown(path, before[2])
        subprocess.run(
            [*before, str(initdb), "-D", f"{self.home}/data", "-U", "mosaic", "-A",
             "scram-sha-256", f"--pwfile={password}", "--no-sync", "-E", "UTF8"],
            check=True, capture_output=True, cwd="/",
        )  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it answers; what was committed before a kill is there."""
        self.process = subprocess.Popen(
            [*_unprivileged(), str(_postgres_program("postgres")), "-D", f"{self.home}/data",
             "-p", str(self.port), "-c", "fsync=off", "-c", "listen_addresses=127.0.0.1",
             "-c", f"unix_socket_directories={self.home}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        _wait_for_port(self.port, self.process)
        _wait_for_answer(self.url)

    def kill(self) -> None:
        """kill -9 of all its processes."""
        assert self.process is not None
        family = psutil.Process(self.process.pid).children(recursive=True)
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.kill()
        self.process.wait()
        psutil.wait_procs(family, 30)

    def end(self) -> None:
        """Stop it, and remove what it has written."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(20)
        shutil.rmtree(self.home, ignore_errors=True)


@contextlib.contextmanager
def private_postgres() -> Iterator[Postgres]:
    """A cluster that runs meanwhile."""
    server = Postgres()
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a private PostgreSQL cluster, without a database at its end."""
    given = os.environ.get("MOSAIC_TEST_POSTGRES")
    if given:
        yield given.rstrip("/")
        return
    with private_postgres() as server:
        yield server.url


def _wait_for_answer(url: str) -> None:
    import psycopg

    for attempt in range(100):
        try:
            psycopg.connect(f"{url}/postgres").close()
            return
        except psycopg.OperationalError:
            if attempt == 99:
                raise
            time.sleep(0.1)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database of its own."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/catalog.db"
        return
    import psycopg

    server = request.getfixturevalue("postgres_server")
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"{server}/{name}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
