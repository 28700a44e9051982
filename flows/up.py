"""A server, its workers and the deployments on this machine, for somebody who tries them.

Everything stops with this process: Ctrl-C ends the workers, the runs under way and the server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil

from flows.command import main
from mosaic_core.errors import ConfigurationError
from mosaic_core.profile import Profile

Processes = list["subprocess.Popen[bytes]"]
START_SECONDS = 240.0
STOP_SECONDS = 10.0


def environment(home: Path, port: int) -> dict[str, str]:
    """Variables of a server with its SQLite below `home`, and of those who talk to it."""
    return {
        "MOSAIC_HOME": str(home),
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "DO_NOT_TRACK": "1",
    }


@contextlib.contextmanager
def children(logs: Path) -> Iterator[Processes]:
    """Processes to be ended at the end, the last first, with all that they have started."""
    logs.mkdir(parents=True, exist_ok=True)
    started: Processes = []
    try:
        yield started
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for process in reversed(started):
            end(process.pid)
            process.wait()


def end(pid: int) -> None:
    """End a process and its descendants: asked first, then killed."""
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=STOP_SECONDS)


def prefect(started: Processes, logs: Path, name: str, *words: str) -> subprocess.Popen[bytes]:
    """Start `prefect WORDS` in a session of its own, so that Ctrl-C reaches only this process."""
    with open(logs / f"{name}.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", *words],
            stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    started.append(process)
    return process


def wait_for_server(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server is healthy.

    Raises:
        ConfigurationError: it ended, or gives no answer.
    """
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return
        time.sleep(0.25)
    raise ConfigurationError(
        f"the Prefect server did not start (exit code {process.poll()})",
        f"an answer at {url}/health",
        f"read {log}",
    )


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise ConfigurationError(
                f"something listens on port {port} already", "a free port", "give another: --port"
            )


def up(
    profile: str, overrides: list[str], home: Path, port: int, schedules: bool, run: bool
) -> None:
    """Start everything, with `run` a cycle too, and stay until interrupted."""
    Profile.load(profile, overrides)
    _refuse_taken(port)
    os.environ.update(environment(home, port))
    logs = home / "logs"
    url = os.environ["PREFECT_API_URL"]
    with children(logs) as started:
        server = prefect(started, logs, "server", "server", "start")
        print(f"starting a Prefect server, logs in {logs} ...", flush=True)  # noqa: T201
        wait_for_server(url, server, logs / "server.log")
        _register(profile, overrides, schedules)
        for pool in ("cpu", "gpu"):
            prefect(started, logs, f"worker-{pool}", "worker", "start", "--pool", pool)
        print(f"the UI is at {url.removesuffix('/api')}; Ctrl-C stops everything", flush=True)  # noqa: T201
        if run:
            _run_one(Profile.load(profile, overrides).name, started)
        _stay(started)


def _register(profile: str, overrides: list[str], schedules: bool) -> None:
    from flows.deploy import deploy
    from flows.plan import plan_file, read_plan

    for line in asyncio.run(
        deploy(read_plan(plan_file()), profile, overrides, paused=not schedules)
    ):
        print(f"  {line}", flush=True)  # noqa: T201


def _run_one(site: str, started: Processes) -> None:
    from prefect.client.orchestration import get_client

    from flows.submission import ask_for

    identity = ask_for(f"run-cycle/{site}", {}, str(uuid.uuid4()), [], part_of_this_run=False).id
    with get_client(sync_client=True) as client:
        while True:
            run = client.read_flow_run(identity)
            if run.state is not None and run.state.is_final():
                break
            _require_alive(started)
            time.sleep(1)
    print(f"{run.name}: {run.state.name} {run.state.message or ''}", flush=True)  # noqa: T201


def _stay(started: Processes) -> None:
    while True:
        _require_alive(started)
        time.sleep(0.5)


def _require_alive(started: Processes) -> None:
    for process in started:
        if process.poll() is not None:
            raise ConfigurationError(
                f"process {process.pid} of {len(started)} ended with code {process.returncode}",
                "it to run until Ctrl-C",
                "read its log",
            )


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _work() -> None:
    parser = argparse.ArgumentParser(prog="mosaic up")
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--port", type=int, default=4200)
    parser.add_argument("--home", type=Path, default=os.environ.get("MOSAIC_HOME", "mosaic-data"))
    parser.add_argument("--schedules", action="store_true")
    parser.add_argument("--run", action="store_true")
    given = parser.parse_args()
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    home = Path(given.home).absolute()
    up(given.profile, given.overrides, home, given.port, given.schedules, given.run)


if __name__ == "__main__":
    main(_work)
