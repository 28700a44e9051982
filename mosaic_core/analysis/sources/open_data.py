"""ECMWF open data: step 0 of the IFS, live, from ECMWF or a mirror.

A run's file and its `.index` (JSON lines with `_offset` and `_length`) lie side by side; the index
appears last and commits the file. Only the messages of the channels are read, by single range
requests, as the mirrors refuse several ranges in one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from mosaic_core.analysis import grib
from mosaic_core.analysis.fields import FieldKey, Oriented, Piece, Plane, Reading, sha256
from mosaic_core.analysis.sources.base import ArchiveSource, CommonSettings, Index
from mosaic_core.analysis.sources.transfer import (
    NotThere,
    OutOfTime,
    Patience,
    Transfer,
    TransferFailed,
)
from mosaic_core.cycle import Cycle
from mosaic_core.errors import AnalysisMissing, AnalysisUnreadable, ConfigurationError
from mosaic_core.settings import build

T = TypeVar("T")

MIRRORS: Final = (
    "https://data.ecmwf.int/forecasts",
    "https://ecmwf-forecasts.s3.eu-central-1.amazonaws.com",
    "https://storage.googleapis.com/ecmwf-open-data",
    "https://ai4edataeuwest.blob.core.windows.net/ecmwf",
)

ONE_STREAM_CUTOVER: Final = datetime(2026, 5, 12, 6, tzinfo=UTC)
"""From this cycle on, 06 and 18 UTC are in stream `oper` too; before, in `scda`."""


@dataclass(frozen=True, kw_only=True)
class OpenDataSettings(CommonSettings):
    """mirrors: roots, in order of preference. model, resolution: folders below a day's run.

    deadline_s bounds the whole fetch of one valid time, waiting included. After
    `failures_per_mirror` failures in a row the next mirror is tried, round and round.
    wait_for_index: keep asking, until the deadline, for an index that no mirror has yet.
    largest_request_mb: adjacent messages are read together up to this.
    """

    mirrors: tuple[str, ...] = MIRRORS
    model: str = "ifs"
    resolution: str = "0p25"
    deadline_s: float = 900.0
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    first_backoff_s: float = 1.0
    longest_backoff_s: float = 60.0
    failures_per_mirror: int = 2
    wait_for_index: bool = False
    largest_request_mb: float = 16.0

    def __post_init__(self) -> None:
        if not self.mirrors or not all(m.startswith(("http://", "https://")) for m in self.mirrors):
            raise ConfigurationError(f"mirrors {self.mirrors}", "at least one http(s) URL")
        positive = (
            self.deadline_s,
            self.connect_timeout_s,
            self.read_timeout_s,
            self.first_backoff_s,
            self.longest_backoff_s,
            self.failures_per_mirror,
            self.largest_request_mb,
        )
        if min(positive) <= 0:
            raise ConfigurationError(f"{self}", "times, counts and sizes above zero")

    @property
    def patience(self) -> Patience:
        return Patience(
            deadline=self.deadline_s,
            connect=self.connect_timeout_s,
            read=self.read_timeout_s,
            first_backoff=self.first_backoff_s,
            longest_backoff=self.longest_backoff_s,
        )


@dataclass(frozen=True, order=True)
class Span:
    """Where one message lies in the file of its run."""

    offset: int
    length: int


def stream(cycle: Cycle) -> str:
    """`oper`, or `scda` for the 06 and 18 UTC runs before 2026-05-12T06Z."""
    short = cycle.init_time.hour in (6, 18) and cycle.init_time < ONE_STREAM_CUTOVER
    return "scda" if short else "oper"


def run_path(cycle: Cycle, model: str = "ifs", resolution: str = "0p25") -> str:
    """Path of a run's step 0 below a mirror's root, without `.grib2` or `.index`."""
    day, hour, kind = f"{cycle.init_time:%Y%m%d}", f"{cycle.init_time:%H}", stream(cycle)
    return f"{day}/{hour}z/{model}/{resolution}/{kind}/{day}{hour}0000-0h-{kind}-fc"


def parse_index(text: str, where: str) -> dict[FieldKey, Span]:
    """The fields of step 0 that an analysis may be made of.

    Raises:
        AnalysisUnreadable: a line that is no JSON object, or one field at two places.
    """
    found: dict[FieldKey, Span] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            span = Span(int(entry["_offset"]), int(entry["_length"]))
            key = _key(entry)
        except (ValueError, KeyError, TypeError) as error:
            raise AnalysisUnreadable(
                f"{where} line {number}: {line[:80]!r} ({type(error).__name__})",
                "a JSON object with param, levtype, _offset and _length",
                "the index may be half written: try again",
            ) from error
        if span.offset < 0 or span.length <= 0:
            raise AnalysisUnreadable(f"{where} line {number}: {span}", "a range of bytes")
        if key is None:
            continue
        if found.setdefault(key, span) != span:
            raise AnalysisUnreadable(
                f"{where} has {key} twice, at bytes {found[key].offset} and {span.offset}", "once"
            )
    return found


def coalesce(spans: Iterable[Span], largest: int) -> list[list[Span]]:
    """Group messages that lie end to end into requests of at most `largest` bytes."""
    groups: list[list[Span]] = []
    for span in sorted(spans):
        group = groups[-1] if groups else []
        adjacent = bool(group) and group[-1].offset + group[-1].length == span.offset
        if adjacent and span.offset + span.length - group[0].offset <= largest:
            group.append(span)
        else:
            groups.append([span])
    return groups


class OpenDataSource(ArchiveSource):
    """Reads one run after another; a run's index is read again from each mirror that is used."""

    kind = "ecmwf-open-data"

    def __init__(
        self,
        settings: OpenDataSettings,
        transfer: Callable[[Patience], Transfer] = Transfer,
    ) -> None:
        super().__init__(settings)
        self.settings = settings
        self._transfer = transfer

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> OpenDataSource:
        return cls(build(OpenDataSettings, settings, "source ecmwf-open-data"))

    def index(self, valid_time: datetime) -> Index:
        cycle = Cycle(valid_time)
        with self._transfer(self.settings.patience) as transfer:
            url, spans = self._first_mirror(
                cycle, transfer, lambda root: self._read_index(transfer, root, cycle)
            )
        return Index(frozenset(spans), url)

    def read(self, valid_time: datetime, keys: frozenset[FieldKey]) -> Reading:
        cycle = Cycle(valid_time)
        got: dict[FieldKey, tuple[Piece, Oriented]] = {}
        with self._transfer(self.settings.patience) as transfer:
            self._first_mirror(
                cycle, transfer, lambda root: self._read_fields(transfer, root, cycle, keys, got)
            )
        planes: dict[FieldKey, Plane] = {key: got[key][1].values for key in sorted(got)}
        first = next(iter(got.values()))[1]
        for key, (piece, oriented) in got.items():
            if oriented.grid != first.grid:
                raise AnalysisUnreadable(
                    f"{piece.where}: {key} is on {oriented.grid}, other fields on {first.grid}",
                    "one grid for all fields of a run",
                )
        pieces = [got[key][0] for key in sorted(got)]
        return Reading(first.grid, planes, pieces, first.how, self._rolls(got))

    def _read_index(
        self, transfer: Transfer, root: str, cycle: Cycle
    ) -> tuple[str, dict[FieldKey, Span]]:
        url = f"{self._url(root, cycle)}.index"
        text = transfer.get(url).decode("utf-8", errors="replace")
        return url, parse_index(text, url)

    def _read_fields(
        self,
        transfer: Transfer,
        root: str,
        cycle: Cycle,
        keys: frozenset[FieldKey],
        got: dict[FieldKey, tuple[Piece, Oriented]],
    ) -> None:
        """Read what is not in `got` yet, and put it there."""
        _, spans = self._read_index(transfer, root, cycle)
        if not keys <= set(spans):
            absent = ", ".join(map(str, sorted(keys - set(spans))))
            raise TransferFailed(f"the index of {root} lacks {absent}")
        url = f"{self._url(root, cycle)}.grib2"
        owner = {spans[key]: key for key in keys - set(got)}
        for group in coalesce(owner, int(self.settings.largest_request_mb * 2**20)):
            start = group[0].offset
            body = transfer.get_range(url, start, group[-1].offset + group[-1].length - start)
            for span in group:
                data = body[span.offset - start : span.offset - start + span.length]
                got[owner[span]] = _field(data, owner[span], span, url, cycle)

    def _first_mirror(self, cycle: Cycle, transfer: Transfer, attempt: Callable[[str], T]) -> T:
        """Try the mirrors in turn until one attempt succeeds or time is up.

        Raises:
            AnalysisMissing: no mirror had it; every one is named with what it answered.
            AnalysisUnreadable: what every mirror that has it gave cannot be decoded.
        """
        answers: dict[str, str] = {}
        try:
            while True:
                absent = 0
                damaged: dict[str, AnalysisUnreadable] = {}
                for root in self.settings.mirrors:
                    for failure in range(self.settings.failures_per_mirror):
                        try:
                            return attempt(root)
                        except NotThere as error:
                            answers[root] = str(error)
                            absent += 1
                            break
                        except (TransferFailed, AnalysisUnreadable) as error:
                            answers[root] = str(error)
                            if isinstance(error, AnalysisUnreadable):
                                damaged[root] = error
                            if failure + 1 < self.settings.failures_per_mirror:
                                transfer.back_off()
                if absent == len(self.settings.mirrors) and not self.settings.wait_for_index:
                    raise self._missing(cycle, answers, "no mirror has published it")
                if absent + len(damaged) == len(self.settings.mirrors) and damaged:
                    raise next(iter(damaged.values()))
                transfer.back_off()
        except OutOfTime:
            reason = f"not fetched within {self.settings.deadline_s:g} s"
            raise self._missing(cycle, answers, reason) from None

    def _missing(self, cycle: Cycle, answers: Mapping[str, str], reason: str) -> AnalysisMissing:
        said = "; ".join(answers.values()) or "no answer from " + ", ".join(self.settings.mirrors)
        return AnalysisMissing(
            f"the run of {cycle}: {reason}: {said}",
            "an index beside the data of the run",
            "try again until the cut-off",
        )

    def _url(self, root: str, cycle: Cycle) -> str:
        path = run_path(cycle, self.settings.model, self.settings.resolution)
        return f"{root.rstrip('/')}/{path}"

    @staticmethod
    def _rolls(got: Mapping[FieldKey, tuple[Piece, Oriented]]) -> Sequence[str]:
        starts = {oriented.how.first_longitude for _, oriented in got.values()}
        if len(starts) < 2:
            return ()
        return (f"messages begin at different longitudes, each rolled by its own: {starts}",)


def _key(entry: Mapping[str, Any]) -> FieldKey | None:
    if str(entry.get("step")) != "0" or entry.get("type") not in ("fc", "an"):
        return None
    known = grib.QUANTITIES.get(entry["param"])
    if known is None:
        return None
    name, _, on_levels = known
    if entry["levtype"] != ("pl" if on_levels else "sfc"):
        return None
    return FieldKey(name, int(entry["levelist"]) if on_levels else 0)


def _field(
    data: bytes, key: FieldKey, span: Span, url: str, cycle: Cycle
) -> tuple[Piece, Oriented]:
    """Decode one message and hold it against what the index said.

    Raises:
        AnalysisUnreadable: not one whole message, or of another field or time.
    """
    where = f"{url} bytes {span.offset}+{span.length}"
    cut = list(grib.messages(data, where))
    if len(cut) != 1 or len(grib.split(data, where)) != 1:
        raise AnalysisUnreadable(f"{where}: {len(cut)} messages", f"one, of {key}")
    head = grib.header(data, where)
    if head is None or head.key != key or head.valid_time != cycle.init_time or head.step:
        raise AnalysisUnreadable(
            f"{where} holds {head}", f"{key} at step 0 of {cycle}, as the index says"
        )
    piece = Piece(url, sha256(data), span.offset, span.length, str(key), 0)
    return piece, grib.decode(data, where)
