"""Analyses in a folder of GRIB files."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from mosaic_core.analysis import grib
from mosaic_core.analysis.fields import FieldKey, Oriented, Piece, Plane, Reading, sha256
from mosaic_core.analysis.sources.base import ArchiveSource, CommonSettings, Index
from mosaic_core.errors import AnalysisMissing, AnalysisUnreadable
from mosaic_core.settings import build


@dataclass(frozen=True, kw_only=True)
class GribSettings(CommonSettings):
    """path: a folder, or one file. pattern: which files of the folder.

    max_step_hours: the longest forecast step that counts as an analysis of its valid time; 0 takes
    analyses only. Of several steps for one valid time the shortest is taken, and recorded.
    """

    path: str
    pattern: str = "**/*.gr*b*"
    max_step_hours: int = 6


@dataclass(frozen=True)
class Entry:
    """One field of a file: part `part` of the message at `offset`."""

    path: Path
    offset: int
    length: int
    part: int
    step: timedelta
    sha256: str

    @property
    def where(self) -> str:
        return f"{self.path} byte {self.offset}"


class GribSource(ArchiveSource):
    """Fields are chosen by name, level and validity time; see `GribSettings` for the step.

    The same field twice with the same step is allowed only with the same bytes, which is noted.
    Perturbed members are never taken for the analysis.
    """

    kind = "grib"

    def __init__(self, settings: GribSettings) -> None:
        super().__init__(settings)
        self.settings = settings
        self._seen: tuple[tuple[str, int, int], ...] = ()
        self._index: dict[datetime, dict[FieldKey, list[Entry]]] = {}

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> GribSource:
        return cls(build(GribSettings, settings, "source grib"))

    def look(self) -> str:
        """What there is, in words, for `mosaic doctor`; raises what `fetch` would."""
        return f"{len(self._files())} files in {self._root}"

    def index(self, valid_time: datetime) -> Index:
        fields = self._scan().get(valid_time)
        where = f"{self._root} ({len(self._seen)} files)"
        if not fields:
            times = sorted(self._index)
            span = f"{times[0]:%Y-%m-%dT%HZ} to {times[-1]:%Y-%m-%dT%HZ}" if times else "nothing"
            raise AnalysisMissing(f"no field is valid then in {where}, which holds {span}")
        return Index(frozenset(fields), where)

    def read(self, valid_time: datetime, keys: frozenset[FieldKey]) -> Reading:
        fields = self._scan()[valid_time]
        planes: dict[FieldKey, Plane] = {}
        pieces, notes = [], []
        first: Oriented | None = None
        for key in sorted(keys):
            entry, note = _choose(key, fields[key])
            notes += note
            oriented = grib.decode(_part(entry), f"{entry.where} ({key})")
            first = first or oriented
            if oriented.grid != first.grid:
                raise AnalysisUnreadable(
                    f"{entry.where}: {key} is on {oriented.grid}, other fields on {first.grid}",
                    "one grid for all fields of a valid time",
                )
            planes[key] = oriented.values
            hours = int(entry.step / timedelta(hours=1))
            pieces.append(
                Piece(str(entry.path), entry.sha256, entry.offset, entry.length, str(key), hours)
            )
        if first is None:
            raise AnalysisMissing(f"no field to read from {self._root}")
        return Reading(first.grid, planes, pieces, first.how, notes)

    @property
    def _root(self) -> Path:
        return Path(self.settings.path)

    def _files(self) -> list[Path]:
        if self._root.is_file():
            return [self._root]
        if not self._root.is_dir():
            raise AnalysisMissing(f"there is no {self._root}", "a folder or file of GRIB")
        return sorted(p for p in self._root.glob(self.settings.pattern) if p.is_file())

    def _scan(self) -> dict[datetime, dict[FieldKey, list[Entry]]]:
        """The index of all files, made anew when a file has come, gone or changed."""
        files = self._files()
        seen = tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files)
        if seen != self._seen or not self._index:
            index: dict[datetime, dict[FieldKey, list[Entry]]] = {}
            for path in files:
                for head, entry in _scan_file(path):
                    if entry.step <= timedelta(hours=self.settings.max_step_hours):
                        at = index.setdefault(head.valid_time, {})
                        at.setdefault(head.key, []).append(entry)
            self._index, self._seen = index, seen
        return self._index


def _scan_file(path: Path) -> Iterator[tuple[grib.Header, Entry]]:
    if path.stat().st_size == 0:
        raise AnalysisUnreadable(f"{path} is empty", "GRIB messages", "fetch it again")
    with path.open("rb") as file:
        # Closed with its last view: an error on the way out may still hold one.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    for message in grib.messages(memoryview(mapped), str(path)):
        where = f"{path} byte {message.offset}"
        digest = sha256(message.data)
        for part, field in enumerate(grib.split(message.data, where)):
            head = grib.header(field, where)
            if head is not None and not head.kind and head.step >= timedelta(0):
                length = len(message.data)
                yield head, Entry(path, message.offset, length, part, head.step, digest)


def _choose(key: FieldKey, entries: list[Entry]) -> tuple[Entry, list[str]]:
    """The entry with the shortest step; refuses two of them that differ."""
    shortest = min(entry.step for entry in entries)
    chosen = [entry for entry in entries if entry.step == shortest]
    first, notes = chosen[0], []
    for other in chosen[1:]:
        same = other.sha256 == first.sha256 and other.part == first.part
        if not same and not _equal(first, other, key):
            raise AnalysisUnreadable(
                f"{key} is there twice with different values: {first.where} and {other.where}",
                "each field once, or copies of the same bytes",
                "remove the wrong file",
            )
        notes.append(f"{key}: {other.where} repeats {first.where}")
    longer = sorted({e.step for e in entries} - {shortest})
    if longer:
        steps = ", ".join(str(int(s / timedelta(hours=1))) for s in longer)
        notes.append(f"{key}: step {int(shortest / timedelta(hours=1))} h taken, not {steps} h")
    return first, notes


def _equal(one: Entry, other: Entry, key: FieldKey) -> bool:
    a, b = (grib.decode(_part(e), f"{e.where} ({key})") for e in (one, other))
    return a.grid == b.grid and np.array_equal(a.values, b.values, equal_nan=True)


def _part(entry: Entry) -> bytes:
    with entry.path.open("rb") as file:
        file.seek(entry.offset)
        data = file.read(entry.length)
    if sha256(data) != entry.sha256:
        raise AnalysisUnreadable(
            f"{entry.where} has changed while it was read", "a file at rest", "try again"
        )
    return grib.split(data, entry.where)[entry.part]
