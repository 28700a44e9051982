"""Where the data of the tests is."""

from __future__ import annotations

import contextlib
import os
import sqlite3  # noqa: F401  before ecCodes, see mosaic_core/analysis/grib.py
from pathlib import Path

# Before anything imports triton: kernels are interpreted on the CPU, when asked for by name.
# `make test-gpu` runs what needs a GPU, with kernels compiled.
os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest

with contextlib.suppress(ImportError):
    import psycopg  # noqa: F401  before ecCodes, see mosaic_core/analysis/grib.py

ROOT = Path(__file__).parent.parent
SHARED = Path(os.environ.get("MOSAIC_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real atmospheric data, beside the checkout; not part of the repository."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(
            f"real data is not at {folder} (set MOSAIC_SHARED to the folder that holds data/)"
        )
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of golden arrays of the published model, kept in the repository."""
    return Path(__file__).parent / "data" / "parity"
