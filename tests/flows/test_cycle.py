"""The flow on Prefect's own test server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mosaic_core.publication import client
from tests.pipeline.test_real_data import IFS_CHANNELS, ifs_source, site_for, small_model

_RUN = """
import json, sys
from prefect.testing.utilities import prefect_test_harness
from flows.cycle import run_cycle
with prefect_test_harness(server_startup_timeout=120):
    found = [run_cycle("2024-06-03T18Z", sys.argv[1]) for _ in range(2)]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_the_flow_publishes_once_and_finds_it_unchanged_after(
    tmp_path: Path, shared_data: Path
) -> None:
    import json

    model = small_model(tmp_path, "ifs10", channels=IFS_CHANNELS, grid={"nlon": 36, "nlat": 19})
    site_for(tmp_path, model, ifs_source(shared_data), steps=2, products=["statistics"])
    environment = {
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    import os

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _RUN, str(tmp_path / "profile.yaml")],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert first["outcome"] == "published"
    assert second["outcome"] == "unchanged"
    assert client.verify(tmp_path / "store").ok
