"""What is there of an ensemble: read without a model, by whoever has to know what is due."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import zarr

from mosaic_core.ensemble.cut import Cut
from mosaic_core.errors import ForecastError
from mosaic_core.storage import ObjectStore

NAME = "ensemble.zarr"
PROGRESS = "ensemble.progress"
IDENTITY = "mosaic_identity"
WHOLE = "whole"


@dataclass(frozen=True)
class Written:
    """Which windows of which batches a forecast's folder holds.

    Attributes:
        identity: what the ensemble is made from.
        windows: (window, batch) indices whose bytes are there; of a sealed ensemble all are.
    """

    identity: dict[str, Any]
    cut: Cut
    windows: frozenset[tuple[int, int]]

    @property
    def sealed(self) -> bool:
        return bool(self.identity.get(WHOLE))

    def missing(self, members: range | None = None) -> Iterator[tuple[int, int]]:
        """(window, batch) indices that are not written yet, in the order they are computed.

        Args:
            members: those of one part; None is all.
        """
        if self.sealed:
            return
        members = members or range(1, self.cut.members + 1)
        for window in range(len(self.cut.windows)):
            for batch in self.cut.batches_of(members):
                if (window, batch) not in self.windows:
                    yield window, batch

    @property
    def steps(self) -> int:
        """Steps that can be read of every member."""
        first = next(self.missing(), None)
        return self.cut.steps if first is None else self.cut.windows[first[0]].start - 1


def stored_identity(objects: ObjectStore, prefix: str) -> dict[str, Any] | None:
    """What the ensemble below `prefix` is made from; None when there is none."""
    if not objects.exists(f"{prefix}/{NAME}/zarr.json"):
        return None
    group = zarr.open_group(objects.zarr(f"{prefix}/{NAME}", read_only=True), mode="r")
    found = group.attrs.get(IDENTITY)
    # Consolidated metadata come after the identity: without them the creation was cut short.
    whole = isinstance(found, dict) and group.metadata.consolidated_metadata is not None
    return dict(found) if whole else None


def written(objects: ObjectStore, prefix: str) -> Written | None:
    """What is there of the ensemble below `prefix`; None when it was not begun."""
    identity = stored_identity(objects, prefix)
    if identity is None:
        return None
    found = set()
    for info in objects.list(f"{prefix}/{PROGRESS}"):
        match = re.search(r"w(\d+)b(\d+)$", info.key)
        if match:
            found.add((int(match[1]), int(match[2])))
    return Written(identity, Cut.of(identity), frozenset(found))


def seal(objects: ObjectStore, prefix: str) -> None:
    """Say in the ensemble that it is whole, and remove the markers of its windows.

    Raises:
        ForecastError: windows are missing; they are named.
    """
    found = written(objects, prefix)
    missing = [(0, 0)] if found is None else list(found.missing())
    if missing:
        raise ForecastError(
            f"{len(missing)} windows of {objects.url(prefix)} are not written, "
            f"first window {missing[0][0] + 1}, batch {missing[0][1] + 1}",
            "a whole forecast",
            "run the same cycle again: it goes on where it stopped",
        )
    if found is not None and not found.sealed:
        key = f"{prefix}/{NAME}/zarr.json"
        metadata = json.loads(objects.get(key))
        metadata["attributes"][IDENTITY][WHOLE] = True
        objects.put(key, json.dumps(metadata, indent=2).encode())
    objects.delete_all(f"{prefix}/{PROGRESS}")


def copy_whole(objects: ObjectStore, source: str, target: str) -> None:
    """Put the sealed ensemble below `source` below `target` too, in place of what is there.

    Its identity is copied last: a copy that was cut short counts as none.
    """
    objects.delete_all(f"{target}/{NAME}")
    objects.delete_all(f"{target}/{PROGRESS}")
    last = f"{source}/{NAME}/zarr.json"
    keys = [info.key for info in objects.list(f"{source}/{NAME}") if info.key != last]
    for key in [*keys, last]:
        objects.copy(key, f"{target}/{key.removeprefix(f'{source}/')}")
