"""A Prefect server and workers in processes of their own on loopback, and what a test asks them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from flows.up import end, environment
from tests.infra.real_s3 import RealS3
from tests.servers import Postgres, free_port

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 900.0
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
# Shorter than Prefect's own, so that a test does not wait for the next poll. A worker gives up
# after 45 polls' time without an answer, which has to be longer than the outages here.
QUICK = {
    "PREFECT_WORKER_QUERY_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_RUNS": "8",
    "PREFECT_SERVER_SERVICES_TRIGGERS_PROACTIVE_GRANULARITY": "2",
}


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """The first true value of a condition; AssertionError when there is none in time."""
    end_of_patience = time.monotonic() + seconds
    while time.monotonic() < end_of_patience:
        found = condition()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


@dataclass
class Orchestra:
    """One server with its SQLite in `folder`.

    Attributes:
        given: variables of the server's and the workers' processes, over those of this one.
        postgres, s3: servers behind it that may be killed, where they are its own.
    """

    folder: Path
    given: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    postgres: Postgres | None = None
    s3: RealS3 | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.http = httpx.Client(base_url=f"{self.url}/", timeout=60)  # one: each is slow to make

    @property
    def environment(self) -> dict[str, str]:
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        return {
            **os.environ,
            **environment(self.folder, self.port),
            **QUICK,
            "PYTHONPATH": paths,
            "OMP_NUM_THREADS": "1",
            **self.given,
        }

    def start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        """Start `python -W ignore WORDS`, its output in `NAME.log`."""
        with open(self.folder / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", *words], env=self.environment, cwd=self.folder,
                stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def start_server(self) -> subprocess.Popen[bytes]:
        process = self.start("server", "-m", "prefect", "server", "start")
        until(lambda: self.healthy() or process.poll() is not None, "the Prefect server")
        assert process.poll() is None, self.log("server")
        return process

    def kill_server(self) -> None:
        """kill -9 of the server and all that it has started."""
        (server,) = [p for p in self.processes if "server" in p.args and p.poll() is None]
        for child in psutil.Process(server.pid).children(recursive=True):
            kill(child.pid)
        kill(server.pid)
        server.wait()

    def start_worker(self, pool: str) -> subprocess.Popen[bytes]:
        return self.start(f"worker-{pool}", "-m", "prefect", "worker", "start", "--pool", pool)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace")[-5000:] if path.exists() else ""

    def healthy(self) -> bool:
        try:
            return self.http.get("health").is_success
        except httpx.TransportError:
            return False

    def end(self) -> None:
        for process in reversed(self.processes):
            end(process.pid)
            process.wait()
        for pid in self.flow_processes():
            end(pid)
        self.http.close()

    def flow_processes(self) -> list[int]:
        """Processes of flow runs of this server, those that their worker has left behind too."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            words = " ".join(process.info["cmdline"] or ())
            if "prefect.engine" not in words and "flow_engine" not in words:
                continue
            with contextlib.suppress(psutil.Error):
                if process.environ().get("PREFECT_API_URL") == self.url:
                    found.append(int(process.info["pid"]))
        return found

    def command(
        self, *words: str, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `python WORDS` to its end."""
        return subprocess.run(
            [sys.executable, "-W", "ignore", *words], env={**self.environment, **(more or {})},
            cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def deploy(self, profile: str, plan: Path | None = None, *words: str) -> str:
        """`mosaic deploy`, which has to succeed."""
        more = ["--file", str(plan)] if plan else []
        done = self.command("-m", "mosaic_core.cli", "deploy", "-p", profile, *more, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def ask(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """POST a body, or GET without one; asked again while the server's SQLite is busy (503)."""

        def answered() -> httpx.Response | None:
            answer = self.http.get(path) if body is None else self.http.post(path, json=body)
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

        answer = until(answered, f"an answer to {path}", 60)
        answer.raise_for_status()
        return answer.json()

    def trigger(self, deployment: str, **parameters: Any) -> str:
        """Create a run of `FLOW/NAME` for now; its id."""
        found = self.ask(f"deployments/name/{deployment}")
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(self.ask(f"deployments/{found['id']}/create_flow_run", body)["id"])

    def run(self, identity: str) -> dict[str, Any]:
        return dict(self.ask(f"flow_runs/{identity}"))

    def runs(self, flow: str | None = None) -> list[dict[str, Any]]:
        body: dict[str, Any] = {"limit": 200, "sort": "EXPECTED_START_TIME_ASC"}
        if flow:
            body["flows"] = {"name": {"any_": [flow]}}
        return list(self.ask("flow_runs/filter", body))

    def ended(self, identity: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """The run once it is in a final state."""

        def look() -> dict[str, Any] | None:
            found = self.run(identity)
            return found if found["state_type"] in FINAL else None

        try:
            return dict(until(look, f"the end of run {identity}", seconds))
        except AssertionError as error:
            text = f"{error}\n{self.run(identity)['state']}\n" + "\n".join(self.logs())
            raise AssertionError(text + self.log("worker-cpu") + self.log("worker-gpu")) from error

    def completed(self, identity: str, seconds: float = PATIENCE) -> dict[str, Any]:
        found = self.ended(identity, seconds)
        assert found["state_type"] == "COMPLETED", (found["state"], self.logs())
        return found

    def logs(self, identity: str | None = None) -> list[str]:
        """Messages of one run, or of all runs, in order."""
        body: dict[str, Any] = {"limit": 200, "sort": "TIMESTAMP_ASC"}
        if identity:
            body["logs"] = {"flow_run_id": {"any_": [identity]}}
        return [entry["message"] for entry in self.ask("logs/filter", body)]

    def artifacts(self, identity: str | None = None) -> list[dict[str, Any]]:
        body: dict[str, Any] = {"limit": 200, "sort": "CREATED_DESC"}
        if identity:
            body["artifacts"] = {"flow_run_id": {"any_": [identity]}}
        return list(self.ask("artifacts/filter", body))


def kill(pid: int) -> None:
    """kill -9, and wait until the process is gone."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    process.send_signal(signal.SIGKILL)
    with contextlib.suppress(psutil.Error):
        until(
            lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE,
            f"the end of process {pid}",
            30,
        )
