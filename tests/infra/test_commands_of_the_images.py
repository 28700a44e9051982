"""What the images start, started here: the same commands, secrets and health checks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.infra.files import BIN, INFRA, instructions_of
from tests.servers import free_port, postgres_server

pytestmark = pytest.mark.slow
__all__ = ["postgres_server"]

PATIENCE = 420
SIGN_IN = "operator:pass-word"


@pytest.fixture
def secrets(tmp_path: Path, postgres_server: str) -> Iterator[dict[str, str]]:
    """Variables that name files, as compose has them; the database is a new one."""
    import psycopg

    name = f"prefect_{os.getpid()}_{time.monotonic_ns()}"
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type,unused-ignore]
    url = postgres_server.replace("postgresql://", "postgresql+asyncpg://")
    (tmp_path / "database").write_text(f"{url}/{name}\n")
    (tmp_path / "sign-in").write_text(f"{SIGN_IN}\n")
    yield {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL_FILE": str(tmp_path / "database"),
        "PREFECT_SERVER_API_AUTH_STRING_FILE": str(tmp_path / "sign-in"),
        "PREFECT_API_AUTH_STRING_FILE": str(tmp_path / "sign-in"),
    }
    with psycopg.connect(f"{postgres_server}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type,unused-ignore]


def test_a_server_on_postgresql_and_a_worker_that_signs_in(
    secrets: dict[str, str], tmp_path: Path
) -> None:
    port, health = free_port(), free_port()
    common = {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "DO_NOT_TRACK": "1",
    }
    client = {
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_AUTH_STRING_FILE": secrets.pop("PREFECT_API_AUTH_STRING_FILE"),
        "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
        "PREFECT_WORKER_WEBSERVER_PORT": str(health),
    }
    here = {"0.0.0.0": "127.0.0.1", "4200": str(port)}
    command = [here.get(word, word) for word in command_of("server")]
    with running({**common, **secrets}, command, tmp_path / "server.log") as server:
        wait_for(server, lambda: healthy(health_check_of("server", "4200", port)))
        api = f"http://127.0.0.1:{port}/api"
        assert httpx.post(f"{api}/work_pools/filter", json={}).status_code == 401
        worker_command = command_of("cpu-worker")
        with running({**common, **client}, worker_command, tmp_path / "worker.log") as worker:
            wait_for(worker, lambda: healthy(health_check_of("cpu-worker", "8080", health)))
            wait_for(worker, lambda: online(api) == ["ONLINE"])
        assert not healthy(health_check_of("cpu-worker", "8080", health))
    for log in ("server.log", "worker.log"):
        assert "pass-word" not in (tmp_path / log).read_text()


def command_of(image: str) -> list[str]:
    found: list[str] = json.loads(instructions_of(image, "CMD")[-1])
    return found


def health_check_of(image: str, before: str, port: int) -> list[str]:
    """The check of the image, at another port of this host."""
    (text,) = instructions_of(image, "HEALTHCHECK")
    program, url = json.loads(text[text.index("CMD ") + 4 :])
    return [
        sys.executable,
        str(INFRA / "images" / Path(program).name),
        url.replace(before, str(port)),
    ]


def heeding_interrupts() -> None:
    """As a container or systemd starts it. A shell's `&` has its commands ignore interrupts, and
    what they start; a worker then does not end, since it makes an interrupt of its SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def healthy(check: list[str]) -> bool:
    return subprocess.run(check, capture_output=True, check=False).returncode == 0


def online(api: str) -> list[str]:
    """The states of the pool's workers; none while there is no pool, which the worker makes."""
    user, _, word = SIGN_IN.partition(":")
    answer = httpx.post(
        f"{api}/work_pools/cpu/workers/filter", json={}, auth=(user, word), timeout=60
    )
    if answer.status_code == 404:
        return []
    found: Any = answer.raise_for_status().json()
    return [worker["status"] for worker in found]


@contextmanager
def running(
    environment: dict[str, str], command: list[str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The command behind the images' entry point; it and all that it starts end with this."""
    with open(log, "wb") as output:
        process = subprocess.Popen(
            ["/bin/sh", str(INFRA / "images/with-secrets"), *command],
            env=environment, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=heeding_interrupts,
        )  # fmt: skip
    try:
        yield process
        process.terminate()
        process.wait(60)
    except BaseException:
        sys.stderr.write(log.read_text()[-3000:])
        raise
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(process: subprocess.Popen[bytes], condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "it has ended"
        assert time.monotonic() < end, "it does not come to be"
        time.sleep(0.5)
