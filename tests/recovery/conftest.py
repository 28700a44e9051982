"""Worlds of the pipeline's tests, with sites opened in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.pipeline.conftest import past, second, unbroken, world
from tests.pipeline.world import World
from tests.recovery.sites import SPLIT, split_world

__all__ = ["past", "second", "unbroken", "world"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the processes of the tests have it: sums come out alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def split(tmp_path: Path) -> World:
    """A site where nothing has run yet, whose members run in parts."""
    return split_world(tmp_path / "split", **SPLIT)
