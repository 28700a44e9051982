from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training import world


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="session")
def atmosphere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an archive of 84 times and static fields; to be read only."""
    folder = tmp_path_factory.mktemp("atmosphere")
    world.write_archive(folder / "archive.zarr", world.waves(84))
    world.write_static(folder / "static.npz")
    return folder


@pytest.fixture
def site(tmp_path: Path, atmosphere: Path) -> Path:
    """A folder with an archive, static fields, a model and a recipe."""
    for name in ("archive.zarr", "static.npz"):
        (tmp_path / name).symlink_to(atmosphere / name)
    world.model_file(tmp_path)
    world.write_recipe(tmp_path)
    return tmp_path
