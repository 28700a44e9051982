"""Every kernel is compiled for the chips that it runs on, by the oldest and the newest Triton."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kernel_builds import OLDEST, compiling

pytest.importorskip("triton")


def run(*command: str, triton: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        env=compiling(triton), capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip


def usages(*options: str, triton: Path | None = None) -> list[dict[str, Any]]:
    done = run("-m", "mosaic_core.kernels.builds", "--json", *options, triton=triton)
    assert done.stdout, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("which", ["oldest", "newest"])
def test_every_kernel_fits_every_chip(which: str) -> None:
    """No spills, shared memory within the chip's, tensor cores where matrices are multiplied."""
    if which == "oldest" and not OLDEST.is_dir():
        pytest.skip(f"no Triton at {OLDEST}; `make test` puts it there")
    found = usages(triton=OLDEST if which == "oldest" else None)
    assert {usage["architecture"] for usage in found} == {80, 90, 100}
    faults = [f"{u['build']} sm_{u['architecture']}: {u['faults']}" for u in found if u["faults"]]
    assert not faults, faults


_BAD = """
from dataclasses import replace
from mosaic_core.kernels.builds import compiled, every_build

build = next(b for b in every_build() if b.name == "sparse attention")
constants = {**build.constants, "TILE_M": 256, "TILE_N": 128}
for fault in compiled(replace(build, constants=constants, warps=4, stages=8), 90).faults:
    print(fault)
"""


def test_a_configuration_that_does_not_fit_is_found_out() -> None:
    done = run("-c", _BAD)
    assert "spills" in done.stdout, done.stderr
    assert "bytes of shared memory, the chip has 232448" in done.stdout
