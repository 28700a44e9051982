"""One section in a process of its own: every entry is on disk before the next begins.

python -m benchmarks.gpu.section NAME SCALE FILE
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, cast

import torch

from benchmarks.gpu.documents import write
from benchmarks.gpu.measuring import Result, Scale, nothing_left

_TAIL = 1500


def main() -> None:
    name, size, target = sys.argv[1:]
    document: dict[str, Any] = {"entries": {}}
    try:
        for entry, result in measured(name, Scale.named(cast(Literal["tiny", "full"], size))):
            document["entries"][entry] = result
            write(Path(target), document)
    except ModuleNotFoundError as error:
        write(Path(target), document | {"skipped": str(error)})


def measured(name: str, scale: Scale) -> Iterator[tuple[str, Result]]:
    """Entries of a section's module one by one; one that raises has `failed` as its result."""
    torch.manual_seed(0)
    for entry, measure in importlib.import_module(name).run(scale):
        try:
            result = measure()
        except Exception as error:
            result = {"failed": failure(error)}
        yield entry, result
        nothing_left(scale)


def failure(error: Exception) -> str:
    """The error, and the end of where it arose."""
    place = "".join(traceback.format_tb(error.__traceback__))
    return f"{type(error).__name__}: {error}"[:_TAIL] + "\n" + place[-_TAIL:]


if __name__ == "__main__":
    main()
