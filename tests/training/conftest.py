from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mosaic_core.training.log import Log
from mosaic_core.training.recipe import Recipe
from mosaic_core.training.trainer import Trainer
from mosaic_core.training.world import World
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


def furnish(folder: Path, atmosphere: Path) -> Path:
    for name in ("archive.zarr", "static.npz"):
        (folder / name).symlink_to(atmosphere / name)
    world.model_file(folder)
    world.write_recipe(folder)
    return folder


@pytest.fixture
def site(tmp_path: Path, atmosphere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an archive, static fields, a model and a recipe."""
    monkeypatch.chdir(tmp_path)
    return furnish(tmp_path, atmosphere)


@dataclass(frozen=True)
class Trained:
    """A folder in which the recipe of `site` was trained without a break."""

    folder: Path
    recipe: Recipe

    @property
    def log(self) -> Log:
        return Log(self.folder)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, atmosphere: Path) -> Path:
    folder = furnish(tmp_path_factory.mktemp("trained"), atmosphere)
    torch.set_num_threads(1)
    with contextlib.chdir(folder):
        assert Trainer(world.recipe(folder), folder / "unbroken", World()).run()
    return folder / "unbroken"


@pytest.fixture
def unbroken(site: Path, trained_once: Path) -> Trained:
    shutil.copytree(trained_once, site / "unbroken")
    return Trained(site / "unbroken", world.recipe(site))
