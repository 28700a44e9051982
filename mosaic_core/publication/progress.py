"""`in-progress.json`: how far the forecast that is being made has come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mosaic_core.cycle import Cycle
from mosaic_core.errors import IntegrityError
from mosaic_core.publication import layout
from mosaic_core.publication.manifest import (
    SCHEMA_VERSION,
    dump,
    read_document,
    read_time,
    refuse_unknown_version,
)
from mosaic_core.storage import ObjectMissing, ObjectStore


@dataclass(frozen=True)
class InProgress:
    """What a forecast in the making says of itself; rewritten as steps arrive.

    Attributes:
        prefix: folder of the forecast, relative to the root of the store.
        steps_done: steps of every member that can be read.
        updated: when this was written, UTC.
        expected_end: when the forecast should be published, UTC.
    """

    cycle: Cycle
    variant: str
    revision: int
    steps_done: int
    steps: int
    updated: datetime
    expected_end: datetime | None = None

    @property
    def prefix(self) -> str:
        return layout.forecast_prefix(self.variant, self.cycle, self.revision)


def write_in_progress(store: ObjectStore, progress: InProgress) -> None:
    document = {"schema_version": SCHEMA_VERSION, "prefix": progress.prefix, **vars(progress)}
    store.put(layout.in_progress_key(progress.variant), dump(document))


def read_in_progress(store: ObjectStore, variant: str) -> InProgress | None:
    """None when no forecast is being made."""
    key = layout.in_progress_key(variant)
    try:
        document = read_document(store.get(key), store.url(key))
    except ObjectMissing:
        return None
    refuse_unknown_version(document, key)
    try:
        end = document["expected_end"]
        return InProgress(
            cycle=Cycle.parse(document["cycle"]),
            variant=document["variant"],
            revision=int(document["revision"]),
            steps_done=int(document["steps_done"]),
            steps=int(document["steps"]),
            updated=read_time(document["updated"]),
            expected_end=end and read_time(end),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise IntegrityError(
            f"{store.url(key)} is damaged: {error!r}", "a progress note"
        ) from error


def clear_in_progress(store: ObjectStore, variant: str, cycle: Cycle) -> None:
    """Remove the note when it speaks of `cycle`, or cannot be read."""
    try:
        progress = read_in_progress(store, variant)
    except IntegrityError:
        progress = None
    if progress is None or progress.cycle == cycle:
        store.delete(layout.in_progress_key(variant))
