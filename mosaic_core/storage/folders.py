"""Files that appear whole, and are on disk with their names when a call returns."""

from __future__ import annotations

import contextlib
import os
import random
from pathlib import Path


def name_beside(path: Path) -> Path:
    """A name for a file still being written, of the form that listings leave out."""
    return path.with_name(f"{path.name}#{random.SystemRandom().randrange(10**12)}")


def write_file(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file whole; FileExistsError when it is there and may not be replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = name_beside(path)
    try:
        with beside.open("xb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        if replace:
            beside.replace(path)
        else:
            os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    fsync(path.parent)


def flush(base: Path) -> None:
    """Bring a file, or a folder and everything in it, to disk."""
    if not base.is_dir():
        fsync(base)
        fsync(base.parent)
        return
    for folder, _, names in os.walk(base):
        for path in (*(Path(folder, name) for name in names), Path(folder)):
            # Another process's unfinished file or abandoned draft may just have gone.
            with contextlib.suppress(FileNotFoundError):
                fsync(path)


def fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune(folder: Path) -> None:
    """Remove the empty folders that are left of a deleted tree."""
    for path, _, _ in os.walk(folder, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)
