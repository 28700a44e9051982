"""What a training tells of itself, one JSON object a line: updates, validations, resumptions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError

from mosaic_core.errors import TrainingError

NAME: Final = "log.jsonl"


@dataclass(frozen=True)
class Update:
    """One update as it is told and logged; loss in standard deviations of a step's change."""

    update: int
    updates: int
    rollout: int
    loss: float
    gradient_norm: float
    learning_rate: float
    windows_per_second: float


class Log:
    """The log of one folder. Entries have a `kind` and the `update` that they belong to."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def note(self, kind: str, update: int, **entry: Any) -> None:
        """Append an entry.

        Raises:
            TrainingError: the disk refuses.
        """
        line = json.dumps({"kind": kind, "update": update, **entry})
        with written(self.path), self.path.open("a") as sink:
            sink.write(line + "\n")

    def entries(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Entries in order; what a kill cut short, and all after it, is left out."""
        found: list[dict[str, Any]] = []
        if not self.path.exists():
            return found
        for line in self.path.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                break
            if kind is None or entry["kind"] == kind:
                found.append(entry)
        return found

    def trim(self, update: int) -> None:
        """Drop what was logged after `update`: those updates are made again."""
        if not self.path.exists():
            return
        kept = [e for e in self.entries() if e["update"] <= update]
        put(self.path, "".join(json.dumps(entry) + "\n" for entry in kept).encode())


def put(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        TrainingError: the disk refuses.
    """
    partial = path.with_name(f"{path.name}.partial")
    with written(path):
        partial.write_bytes(data)
        partial.replace(path)


@contextmanager
def written(path: Path) -> Iterator[None]:
    """Turn the refusal of a disk into an error that names the file."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}",
            "room on the disk, and leave to write there",
            "make room; `mosaic train --resume` goes on from the last whole checkpoint",
        ) from error
