"""What the steps of a cycle say: small, and plain enough to be passed between processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from mosaic_core.cycle import Cycle
from mosaic_core.products.product import BuiltProduct, ProductFailure
from mosaic_core.products.writing import Asset
from mosaic_core.publication.manifest import Manifest

ProductResult = BuiltProduct | ProductFailure


@dataclass(frozen=True)
class Ingested:
    """What `ingest` found; its dictionary can be passed between processes.

    Attributes:
        valid_times: of the analyses that the forecast starts from, UTC, oldest first.
        started, available: when the step began and when the analyses were there, UTC.
        degraded: in words, what is less than it should be.
    """

    cycle: Cycle
    valid_times: tuple[datetime, ...]
    started: datetime
    available: datetime
    degraded: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return round((self.available - self.started).total_seconds(), 3)

    def as_dict(self) -> dict[str, Any]:
        return {
            "cycle": self.cycle.id,
            "valid_times": [time.isoformat() for time in self.valid_times],
            "started": self.started.isoformat(),
            "available": self.available.isoformat(),
            "degraded": list(self.degraded),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Ingested:
        return cls(
            Cycle.parse(plain["cycle"]),
            tuple(datetime.fromisoformat(time) for time in plain["valid_times"]),
            datetime.fromisoformat(plain["started"]),
            datetime.fromisoformat(plain["available"]),
            tuple(plain["degraded"]),
        )


@dataclass(frozen=True)
class Begun:
    """What `begin` decided.

    Attributes:
        outcome: `due`: go on with the parts, join, products, publish; `unchanged`: the same
            forecast is published; `superseded`: a newer cycle is, or this one is too old.
        attempt: which attempt at this revision it is, from 1.
        parts: parts (from 1) whose members are not all written; the others are done.
        of: how many parts there are.
        reason: why it is superseded.
        url: of what is published, when `unchanged`.
        seconds: that the ingest took.
    """

    cycle: Cycle
    outcome: Literal["due", "unchanged", "superseded"]
    revision: int
    attempt: int = 0
    parts: tuple[int, ...] = ()
    of: int = 1
    reason: str = ""
    url: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "cycle": self.cycle.id, "parts": list(self.parts)}


@dataclass(frozen=True)
class Forecasted:
    """What `forecast` did with a part; `computed` is False when it was found done."""

    part: int
    of: int
    computed: bool
    device: str = ""
    seconds: float = 0.0
    undelivered: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "undelivered": list(self.undelivered)}


@dataclass
class CycleReport:
    """What a run of a cycle did.

    `outcome` is `published`, or `unchanged` when the same forecast was published before.
    """

    cycle: Cycle
    outcome: str
    manifest: Manifest
    url: str
    timings: dict[str, float] = field(default_factory=dict)
    products: list[ProductResult] = field(default_factory=list)
    undelivered: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a program that reads them."""
        return {
            "cycle": self.cycle.id,
            "outcome": self.outcome,
            "revision": self.manifest.revision,
            "url": self.url,
            "digest": self.manifest.digest,
            "timings": self.timings,
            "products": sorted({asset.product for asset in self.manifest.assets}),
            "missing": {m.product: m.reason for m in self.manifest.missing},
            "degraded": self.manifest.quality.degraded,
            "flags": list(self.manifest.quality.flags),
            "undelivered": self.undelivered,
        }


def results_to_plain(results: list[ProductResult]) -> list[dict[str, Any]]:
    """Products as `publish` needs them, in values that JSON holds."""
    return [asdict(result) for result in results]


def results_from_plain(plain: list[dict[str, Any]]) -> list[ProductResult]:
    """The inverse of `results_to_plain`."""
    found: list[ProductResult] = []
    for entry in plain:
        if "assets" not in entry:
            found.append(ProductFailure(**{**entry, "missing": tuple(entry["missing"])}))
            continue
        assets = tuple(_asset(asset) for asset in entry["assets"])
        notes = tuple(entry["notes"])
        found.append(BuiltProduct(entry["id"], assets, notes, entry["seconds"]))
    return found


def _asset(plain: Mapping[str, Any]) -> Asset:
    chunks = {name: tuple(shape) for name, shape in plain["chunks"].items()}
    sequences = {name: tuple(plain[name]) for name in ("variables", "lead_hours")}
    return Asset(**{**plain, **sequences, "chunks": chunks})
