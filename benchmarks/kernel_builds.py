"""What the Triton kernels become on each chip, by the oldest and the newest supported Triton.

Nothing is run on a GPU: kernels are compiled, and the machine code is read.

    python -m benchmarks.kernel_builds
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.record import record

OLDEST = Path(sys.prefix) / "triton-3.6"
"""Where `make` puts it."""


def compiling(triton: Path | None) -> dict[str, str]:
    """The environment of a process that compiles, with the Triton of a folder or the newest."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_DEFAULT_FP_FUSION"] = "1"
    if triton is not None:
        environment["PYTHONPATH"] = str(triton)
    return environment


def usages(path: Path | None) -> dict[str, Any]:
    environment = compiling(path)

    def ask(*command: str) -> str:
        return subprocess.run(
            [sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True
        ).stdout

    version = ask("-c", "import triton; print(triton.__version__)").strip()
    return {version: json.loads(ask("-m", "mosaic_core.kernels.builds", "--json"))}


def table(result: dict[str, list[dict[str, Any]]]) -> str:
    """Registers and shared memory as Markdown: a row a kernel, a column a chip, versions by /."""
    cells: dict[str, dict[int, list[tuple[int, int]]]] = {}
    for found in result.values():
        for usage in found:
            row = cells.setdefault(usage["build"], {}).setdefault(usage["architecture"], [])
            row.append((usage["registers"], usage["shared"]))
    lines = [
        f"| kernel | {' | '.join(f'sm_{chip}' for chip in (80, 90, 100))} |",
        "|---|---|---|---|",
    ]
    for build, chips in cells.items():
        columns = []
        for chip in (80, 90, 100):
            pairs = chips.get(chip, [])
            registers = " / ".join(str(r) for r, _ in pairs)
            shared = " / ".join(f"{s / 1024:.0f}" for _, s in pairs)
            columns.append(f"{registers}; {shared} KB" if pairs else "not launched")
        lines.append(f"| {build} | {' | '.join(columns)} |")
    return "\n".join(lines)


def main() -> None:
    result = {**usages(OLDEST), **usages(None)}
    faults = [
        f"{version} {usage['build']} sm_{usage['architecture']}: {usage['faults']}"
        for version, found in result.items()
        for usage in found
        if usage["faults"]
    ]
    record("kernel_builds", "python -m benchmarks.kernel_builds", result, ("triton",))
    print(table(result))
    print("\n".join(faults) or "no faults")


if __name__ == "__main__":
    main()
