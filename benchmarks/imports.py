"""Time to import the package and to show the command's help, in fresh processes.

python -m benchmarks.imports [--repeat 7]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

from benchmarks.record import record


def seconds(command: list[str], repeat: int) -> float:
    taken = []
    for _ in range(repeat):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=7)
    repeat = parser.parse_args().repeat
    python = [sys.executable]
    bare = seconds([*python, "-c", "pass"], repeat)
    imported = seconds([*python, "-c", "import mosaic_core"], repeat)
    helped = seconds([*python, "-m", "mosaic_core.cli", "--help"], repeat)
    record(
        "imports",
        f"python -m benchmarks.imports --repeat {repeat}",
        {
            "bare_python_seconds": bare,
            "import_mosaic_core_seconds": imported - bare,
            "mosaic_help_seconds": helped,
        },
        ("typer", "rich"),
    )


if __name__ == "__main__":
    main()
