from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training import world


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(before)
    torch.set_flush_denormal(False)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an archive, static fields, a model and a recipe."""
    world.write_archive(tmp_path / "archive.zarr", world.waves(84))
    world.write_static(tmp_path / "static.npz")
    world.model_file(tmp_path)
    world.write_recipe(tmp_path)
    return tmp_path
