"""What is imported by what, in fresh processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "prefect", "xarray", "zarr", "sqlalchemy", "matplotlib", "eccodes", "numpy")

_BARE = """
import sys

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in forbidden:
            raise ModuleNotFoundError(name)

forbidden = {"xarray", "zarr", "sqlalchemy", "safetensors", "obstore", "boto3", "pydantic", "rich",
             "typer", "eccodes", "prefect", "triton", "psutil"}
sys.meta_path.insert(0, Wall())
import torch
from mosaic_core.model import checkpoint, rollout
from mosaic_core.model.config import GridConfig, ModelConfig, StageConfig
config = ModelConfig("bare", 6, 2, 4, (StageConfig(4, 32, 2, 1, 48, 16, 2, 1),), GridConfig(24, 13),
                     channels=("2m_temperature",))
static = torch.randn(24, 13, 3)
file = checkpoint.untrained(config, torch.zeros(1), torch.ones(1), static)
version = checkpoint.version_of(config, file)
model = checkpoint.load_model(config, file, version, torch.device("cpu"))
print(sum(1 for _ in model.network.parameters()) > 10)
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    found = run(f"import sys, mosaic_core; print([m for m in {HEAVY} if m in sys.modules])")
    assert found.strip() == "[]"


@pytest.mark.parametrize("command", ["--help", "model --help", "products --help"])
def test_help_imports_neither_torch_nor_prefect(command: str) -> None:
    found = run(
        "import sys\nfrom mosaic_core.cli import app\n"
        f"try:\n    app({command.split()!r})\nexcept SystemExit:\n    pass\n"
        f"print('heavy:', [m for m in {HEAVY} if m in sys.modules])"
    )
    assert found.strip().endswith("heavy: []")


def test_the_model_needs_torch_numpy_scipy_and_healpy_alone() -> None:
    assert run(_BARE).strip() == "True"


def test_the_consumers_client_needs_no_model_and_no_catalog() -> None:
    found = run(
        "import sys\nfrom mosaic_core.publication import client\n"
        "print([m for m in ('torch', 'prefect', 'sqlalchemy', 'eccodes') if m in sys.modules])"
    )
    assert found.strip() == "[]"


@pytest.mark.parametrize("first", ["mosaic_core.analysis.grib", "psycopg"])
def test_a_process_that_reads_grib_and_uses_postgresql_ends_well(first: str) -> None:
    pytest.importorskip("psycopg")
    run(f"import {first}, mosaic_core.analysis.grib, psycopg")
