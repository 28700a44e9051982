"""Sections one after the other, each in a process with a timeout; failures are results too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.gpu.documents import read, write

_TAIL = 2000


@dataclass(frozen=True)
class Section:
    """A module with `run(scale)`, and the seconds it may take."""

    name: str
    module: str
    seconds: float


SECTIONS = tuple(
    Section(name, f"benchmarks.gpu.sections.{name}", seconds)
    for name, seconds in {
        "correctness": 180,
        "ceilings": 35,
        "attention": 110,
        "feed_forward": 50,
        "step": 155,
        "accuracy": 60,
        "rollout": 60,
        "training": 90,
        "interpolation": 60,
        "first_step": 60,
    }.items()
)
"""In order: what must be right first, then what the rest is measured against. Those up to `step`
fit the default nine minutes even if each takes all it may; time that lacks is lost at the end."""


def run(
    sections: Sequence[Section],
    head: Mapping[str, Any],
    target: Path,
    *,
    scale: Literal["tiny", "full"],
    seconds: float,
) -> dict[str, Any]:
    """Run the sections within `seconds` and keep `target` up to date after each.

    Returns:
        `head`, and by section: `status` (`done`, `skipped`, `failed`, `timed out`, `not run`), the
        seconds it took, its entries so far and, where it did not end well, `reason`.
    """
    document: dict[str, Any] = {**head, "sections": {}}
    end = time.monotonic() + seconds
    for section in sections:
        left = end - time.monotonic()
        if left < min(10.0, section.seconds):
            found: dict[str, Any] = {"status": "not run", "reason": "no time was left"}
        else:
            found = _one(section, scale, min(section.seconds, left))
        document["sections"][section.name] = found
        write(target, document)
        print(f"{section.name}: {found['status']}", file=sys.stderr, flush=True)
    return document


def _one(section: Section, scale: str, seconds: float) -> dict[str, Any]:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        target, log = Path(folder) / "section.json", Path(folder) / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.gpu.section", section.module, scale, target],
                stdout=stream, stderr=stream, start_new_session=True,
            )  # fmt: skip
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(process)
        found = read(target)
        tail = log.read_text(encoding="utf-8", errors="replace")[-_TAIL:]
    result = {"seconds": time.monotonic() - start, "entries": found.get("entries", {})}
    if code is None:
        return {"status": "timed out", "reason": f"after {seconds:.0f} s: {tail}", **result}
    if code:
        return {"status": "failed", "reason": f"exit code {code}: {tail}", **result}
    if "skipped" in found:
        return {"status": "skipped", "reason": found["skipped"], **result}
    return {"status": "done", **result}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the section and whatever it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()
