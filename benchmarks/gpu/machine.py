"""What a run was made on."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

import torch

from benchmarks.record import processor

_QUERY = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit,memory.total"


def machine() -> dict[str, object]:
    """Chip, driver, clocks now and at most, versions; on a CPU the processor."""
    versions = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for package in ("torch", "triton", "numpy", "scipy", "healpy"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    found: dict[str, object] = {"processor": processor(), "versions": versions}
    if not torch.cuda.is_available():
        return found | {"chip": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    return found | {
        "chip": properties.name,
        "capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_gb": properties.total_memory / 1e9,
        "nvidia_smi": _smi(),
    }


def _smi() -> dict[str, str]:
    """Driver and clocks, read and never set."""
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return {"error": str(error)}
    values = done.stdout.strip().splitlines()[0].split(", ")
    return dict(zip(_QUERY.split(","), values, strict=True))
