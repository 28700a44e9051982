"""The real S3 server of `../shared/tools/real-s3`, for this session alone."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.servers import free_port

TOOL = SHARED / "tools/real-s3"
_MONITOR = (3301, 6799)  # ports that the tool gives its monitor, whoever starts it
_PATIENCE = 420


@pytest.fixture(scope="session")
def real_s3() -> Iterator[str]:
    """Address of a Ceph RGW with the users `test` (may all) and `reader` (may nothing)."""
    if not TOOL.is_file():
        pytest.skip(f"no real S3 server: {TOOL} is not there (MOSAIC_SHARED names shared/)")
    if shutil.which("apt-get") is None:
        pytest.skip("no real S3 server: it is unpacked from Debian packages by apt-get")
    home, port = Path(tempfile.mkdtemp(prefix="mosaic-s3-")), free_port()
    environment = {**os.environ, "REAL_S3_HOME": str(home), "REAL_S3_PORT": str(port)}
    with _alone():
        try:
            _run(os.environ, "install")
            (home / "root").symlink_to(_installed())
            _run(environment, "start")
            yield f"http://127.0.0.1:{port}"
        finally:
            _run(environment, "stop")
            shutil.rmtree(home, ignore_errors=True)


def _installed() -> Path:
    default = Path.home() / ".cache/real-s3"
    return Path(os.environ.get("REAL_S3_HOME", default)) / "root"


def _run(environment: os._Environ[str] | dict[str, str], word: str) -> None:
    done = subprocess.run(
        [str(TOOL), word], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=_PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, f"real-s3 {word}: {done.stdout}"


@contextmanager
def _alone() -> Iterator[None]:
    """One such server at a time on a machine: its monitor's ports are fixed."""
    with open(Path(tempfile.gettempdir()) / "mosaic-real-s3.lock", "w") as lock:
        end = time.monotonic() + _PATIENCE
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
