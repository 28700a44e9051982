"""The real S3 server of `../shared/tools/real-s3`, one at a time on a machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.conftest import SHARED
from tests.servers import free_port

TOOL = SHARED / "tools/real-s3"
_MONITOR = (3301, 6799)  # ports that the tool gives its monitor, whoever starts it
_PATIENCE = 420
_TURN = 1800  # for who waits until another module has no need of the server any more


class RealS3:
    """A Ceph RGW with the users `test` (may all) and `reader` (may nothing)."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._gateway: tuple[list[str], dict[str, str]] = ([], {})
        self._restarted: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """How its user `test` finds it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test-secret",
            "AWS_REGION": "us-east-1",
        }

    def make_bucket(self, name: str) -> None:
        import boto3

        given = self.environment
        client = boto3.client(
            "s3", endpoint_url=self.url, region_name=given["AWS_REGION"],
            aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        client.create_bucket(Bucket=name)
        client.close()

    def kill(self) -> None:
        """kill -9 of the gateway; what it has stored lies with the daemons behind it."""
        gateway = psutil.Process(int(self._pid_file.read_text()))
        self._gateway = gateway.cmdline(), gateway.environ()
        gateway.kill()
        if self._restarted is not None:
            self._restarted.wait()
        psutil.wait_procs([gateway], 30)

    def start(self) -> None:
        """Start the gateway again, and wait until it answers."""
        command, environment = self._gateway
        self._restarted = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._pid_file.write_text(str(self._restarted.pid))
        end = time.monotonic() + _PATIENCE
        while not self._answers():
            assert time.monotonic() < end, "the gateway does not answer"
            time.sleep(0.2)

    def run(self, word: str) -> None:
        given = {"REAL_S3_HOME": str(self.home), "REAL_S3_PORT": str(self.port)}
        _run({**os.environ, **given}, word)
        if word == "stop" and self._restarted is not None:
            self._restarted.wait(30)

    @property
    def _pid_file(self) -> Path:
        return self.home / "run/rgw.started"

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(self.url, timeout=10) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False


@contextmanager
def real_s3_server() -> Iterator[RealS3]:
    """The server, which runs meanwhile; the test is skipped where there is none."""
    if not TOOL.is_file():
        pytest.skip(f"no real S3 server: {TOOL} is not there (MOSAIC_SHARED names shared/)")
    if shutil.which("apt-get") is None:
        pytest.skip("no real S3 server: it is unpacked from Debian packages by apt-get")
    server = RealS3(Path(tempfile.mkdtemp(prefix="mosaic-s3-")))
    with _alone():
        try:
            _run(dict(os.environ), "install")
            (server.home / "root").symlink_to(_installed())
            server.run("start")
            yield server
        finally:
            server.run("stop")
            shutil.rmtree(server.home, ignore_errors=True)


@pytest.fixture(scope="module")
def real_s3() -> Iterator[str]:
    """Address of the server."""
    with real_s3_server() as server:
        yield server.url


def _installed() -> Path:
    default = Path.home() / ".cache/real-s3"
    return Path(os.environ.get("REAL_S3_HOME", default)) / "root"


def _run(environment: dict[str, str], word: str) -> None:
    done = subprocess.run(
        [str(TOOL), word], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=_PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, f"real-s3 {word}: {done.stdout}"


@contextmanager
def _alone() -> Iterator[None]:
    """One such server at a time on a machine: its monitor's ports are fixed."""
    with open(Path(tempfile.gettempdir()) / "mosaic-real-s3.lock", "w") as lock:
        end = time.monotonic() + _TURN
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not any(_taken(port) for port in _MONITOR):
                    break
                fcntl.flock(lock, fcntl.LOCK_UN)
            except BlockingIOError:
                pass
            assert time.monotonic() < end, "another real S3 server has not ended"
            time.sleep(0.5)
        yield


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
