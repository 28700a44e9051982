"""What a source of analyses is, and the steps that all of them share.

A source of files says for one valid time which fields there are (`Index`) and reads those asked
for (`Reading`). From that, `ArchiveSource` plans each channel (given, derived by an allowed rule,
filled by a written override, or missing), names everything that is missing in one error, and
assembles the dataset with its provenance.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import xarray as xr

from mosaic_core import dims
from mosaic_core.analysis.derive import RULES, Fill, RuleName, rule_for
from mosaic_core.analysis.fields import (
    FieldKey,
    Plane,
    Provenance,
    Reading,
    assemble,
    time_values,
)
from mosaic_core.channels import Channel, Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import AnalysisMissing, AnalysisUnreadable
from mosaic_core.grid import LatLonGrid

PROVENANCE = "provenance"
DEGRADED = "degraded"


class Source(Protocol):
    """Gives analyses on its own grid."""

    @property
    def name(self) -> str:
        """Names the folder of stored analyses, and stands in messages and the manifest."""

    def fetch(self, channels: Channels, valid_times: Sequence[datetime]) -> xr.Dataset:
        """The analyses at `valid_times`, in the form of an analysis dataset.

        Raises:
            AnalysisMissing: a time or channel is not there (yet); all of them are named.
            AnalysisUnreadable: what is there cannot be decoded.
        """


@dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """What every source of files can be told.

    name: of the source; the kind when empty.
    derive: rules that may be used, in order of preference.
    allow_missing: fills for channels the source does not have; they mark the analysis degraded.
    """

    name: str = ""
    derive: tuple[RuleName, ...] = ("geopotential_from_height",)
    allow_missing: Mapping[str, Fill] = field(default_factory=dict)


@dataclass(frozen=True)
class Index:
    """What there is for one valid time, and where it was looked for."""

    fields: frozenset[FieldKey]
    where: str


@dataclass(frozen=True)
class Plan:
    """How each channel of one valid time comes about."""

    given: frozenset[FieldKey]
    derived: Mapping[FieldKey, RuleName]
    filled: Mapping[FieldKey, tuple[FieldKey, ...]]
    missing: tuple[FieldKey, ...]

    @property
    def to_read(self) -> frozenset[FieldKey]:
        parts = {
            FieldKey(need, key.level)
            for key, rule in self.derived.items()
            for need in RULES[rule].needs
        }
        return self.given | parts


def make_plan(channels: Iterable[Channel], index: Index, settings: CommonSettings) -> Plan:
    """Choose for every channel: given, derived, filled, or missing."""
    given: set[FieldKey] = set()
    derived: dict[FieldKey, RuleName] = {}
    lacking: list[FieldKey] = []

    def obtain(key: FieldKey) -> bool:
        if key in index.fields:
            given.add(key)
            return True
        rule = rule_for(key, settings.derive, index.fields)
        if rule is not None:
            derived[key] = rule[0]
        return rule is not None

    for channel in channels:
        if not obtain(FieldKey.of(channel)):
            lacking.append(FieldKey.of(channel))
    fills = {FieldKey.of(Channel.parse(n)): fill for n, fill in settings.allow_missing.items()}
    obtainable = set(index.fields) | set(derived)
    filled: dict[FieldKey, tuple[FieldKey, ...]] = {}
    for key in [key for key in lacking if key in fills]:
        filled[key] = fills[key].needs(key, obtainable)
        for need in filled[key]:
            obtain(need)
    missing = tuple(key for key in lacking if key not in filled)
    return Plan(frozenset(given), derived, filled, missing)


class ArchiveSource(ABC):
    """A source of files, decoded field by field."""

    kind: str

    def __init__(self, settings: CommonSettings) -> None:
        self.common = settings
        for name in settings.allow_missing:
            Channel.parse(name)

    @property
    def name(self) -> str:
        return self.common.name or self.kind

    @abstractmethod
    def index(self, valid_time: datetime) -> Index:
        """What is there for one time.

        Raises:
            AnalysisMissing: nothing is.
        """

    @abstractmethod
    def read(self, valid_time: datetime, keys: frozenset[FieldKey]) -> Reading:
        """Read the fields `keys`, all of which `index` named."""

    def fetch(self, channels: Channels, valid_times: Sequence[datetime]) -> xr.Dataset:
        plans = self._plans(channels, valid_times)
        states: list[Mapping[FieldKey, Plane]] = []
        provenance: list[Provenance] = []
        grid: LatLonGrid | None = None
        for time, plan in plans.items():
            reading = self.read(time, plan.to_read)
            grid = grid or reading.grid
            if not grid.is_close(reading.grid):
                raise AnalysisUnreadable(
                    f"{self.name}: the grid changes from {grid} to {reading.grid} at {_iso(time)}",
                    "one grid for all valid times",
                    "fetch the times before and after the change apart",
                )
            states.append(self._complete(plan, reading.planes))
            provenance.append(self._provenance(time, plan, reading))
        if grid is None:
            raise AnalysisMissing(f"{self.name}: no valid times were asked for", "at least one")
        ds = assemble(channels, list(plans), grid, states)
        return label(ds, provenance)

    def _plans(self, channels: Channels, times: Sequence[datetime]) -> dict[datetime, Plan]:
        """A plan for each time; everything that is missing is named in one error."""
        plans: dict[datetime, Plan] = {}
        absent: list[str] = []
        for time in times:
            try:
                index = self.index(time)
            except AnalysisMissing as error:
                absent.append(f"{_iso(time)} ({error.found})")
                continue
            plans[time] = plan = make_plan(channels, index, self.common)
            if plan.missing:
                have = len(channels) - len(plan.missing)
                names = ", ".join(map(str, plan.missing))
                absent.append(
                    f"{_iso(time)}: {have} of {len(channels)} channels, not {names}; "
                    f"looked in {index.where}"
                )
        if absent:
            raise AnalysisMissing(
                f"{self.name} lacks " + "; ".join(absent),
                f"all {len(channels)} channels at {len(times)} valid times",
                "wait for the analysis, allow a rule under `derive`, "
                "or write an override under `allow_missing`",
            )
        return plans

    def _complete(self, plan: Plan, planes: Mapping[FieldKey, Plane]) -> Mapping[FieldKey, Plane]:
        state = dict(planes)
        for key, name in plan.derived.items():
            rule = RULES[name]
            state[key] = rule.formula(
                key.level, {need: planes[FieldKey(need, key.level)] for need in rule.needs}
            )
        fills = {FieldKey.of(Channel.parse(n)): f for n, f in self.common.allow_missing.items()}
        for key, needs in plan.filled.items():
            state[key] = fills[key].apply(key, needs, state)
        return state

    def _provenance(self, time: datetime, plan: Plan, reading: Reading) -> Provenance:
        fills = {FieldKey.of(Channel.parse(n)): f for n, f in self.common.allow_missing.items()}
        return Provenance(
            source=self.name,
            kind=self.kind,
            valid_time=_iso(time),
            pieces=list(reading.pieces),
            messages=len(reading.pieces),
            orientation=reading.orientation,
            derived={str(k): f"{r}: {RULES[r].text}" for k, r in plan.derived.items()},
            filled={str(k): fills[k].text(needs) for k, needs in plan.filled.items()},
            notes=list(reading.notes),
        )


def label(ds: xr.Dataset, provenance: Sequence[Provenance]) -> xr.Dataset:
    """Write provenance, and what makes the analysis degraded, into the attributes."""
    degraded = sorted(
        {
            f"{key} was not in {entry.source}: filled by {text}"
            for entry in provenance
            for key, text in entry.filled.items()
        }
    )
    return ds.assign_attrs(
        {
            "source": provenance[0].source,
            PROVENANCE: json.dumps([asdict(entry) for entry in provenance]),
            DEGRADED: json.dumps(degraded),
        }
    )


def fetch_analysis(
    source: Source, cycle: Cycle, channels: Channels, valid_times: Sequence[datetime]
) -> xr.Dataset:
    """Fetch the analyses that start the forecast of `cycle`, on the source's own grid.

    Returns:
        dimensions valid_time, level, latitude, longitude; one float32 variable a quantity; latitude
        and longitude ascend; attributes `source`, `cycle`, `provenance` (JSON, an entry a time)
        and `degraded` (JSON list, empty for a sound analysis).

    Raises:
        AnalysisMissing: a time or channel is not there (yet); all of them are named.
        AnalysisUnreadable: what is there cannot be decoded, or the source broke its promise.
    """
    times = [time.astimezone(UTC) for time in valid_times]
    ds = source.fetch(channels, times)
    _require_form(ds, source.name, channels, times)
    attrs = {"source": source.name, PROVENANCE: "[]", DEGRADED: "[]"} | ds.attrs
    return ds.assign_attrs(attrs | {"cycle": cycle.id})


def _require_form(ds: xr.Dataset, name: str, channels: Channels, times: Sequence[datetime]) -> None:
    wrong = []
    for variable, levels in channels.variables.items():
        if variable not in ds:
            wrong.append(f"no {variable}")
            continue
        expected = {dims.VALID_TIME, dims.LATITUDE, dims.LONGITUDE} | (
            {dims.LEVEL} if levels else set()
        )
        array = ds[variable]
        if set(array.dims) != expected or array.dtype != np.float32:
            wrong.append(f"{variable} is {array.dtype} {array.dims}")
        elif levels and not set(levels) <= set(ds[dims.LEVEL].values.tolist()):
            wrong.append(f"{variable} has levels {ds[dims.LEVEL].values.tolist()}")
    if not wrong and not np.array_equal(
        ds[dims.VALID_TIME].values.astype("datetime64[ns]"), time_values(times)
    ):
        wrong.append(f"valid times {ds[dims.VALID_TIME].values}")
    if wrong:
        raise AnalysisUnreadable(
            f"source {name} gave " + "; ".join(wrong),
            "float32 variables of (valid_time, [level,] latitude, longitude) at those times",
        )


def _iso(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%MZ")
