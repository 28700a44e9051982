from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.monitoring.receivers import Receiver, receiver
from tests.monitoring.world import World
from tests.servers import postgres_server

__all__ = ["postgres_server"]


@pytest.fixture
def pager() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a site that has published the cycle before; to be copied, not used."""
    made = World(tmp_path_factory.mktemp("past") / "site")
    made.publish_before()
    return made.folder


@pytest.fixture
def world(past: Path, tmp_path: Path, pager: Receiver, monkeypatch: pytest.MonkeyPatch) -> World:
    """A site that has published the cycle before, whose alerts go to `pager`."""
    monkeypatch.setenv("TEST_PAGER_URL", pager.url)
    monkeypatch.setenv("TEST_PAGER_SECRET", "topsecret-shared")
    shutil.copytree(past, tmp_path / "site")
    url, secret = "${TEST_PAGER_URL}", "${TEST_PAGER_SECRET}"
    channels = {"pager": {"kind": "webhook", "url": url, "secret": secret}}
    return World(tmp_path / "site", channels=channels)
