"""A small forecast to publish, and stores that fail on purpose."""

from __future__ import annotations

import dataclasses
import warnings
from datetime import UTC, datetime

import numpy as np
import xarray as xr

from mosaic_core.cycle import Cycle
from mosaic_core.errors import StoreError
from mosaic_core.publication import layout
from mosaic_core.publication.manifest import (
    ZARR_MEDIA_TYPE,
    AssetDraft,
    Ensemble,
    Input,
    ManifestDraft,
    Model,
    Timeliness,
)
from mosaic_core.storage import ObjectStore

CYCLE = Cycle.parse("2026-11-20T00Z")
NOW = datetime(2026, 11, 20, 7, tzinfo=UTC)


def stage(
    store: ObjectStore, cycle: Cycle = CYCLE, revision: int = 1, content: float = 1.0
) -> ManifestDraft:
    """Write the objects of a forecast and return its draft."""
    prefix = layout.forecast_prefix("hres", cycle, revision)
    values = np.full((2, 3), content, "float32")
    dataset = xr.Dataset({"2m_temperature": (("latitude", "longitude"), values)})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata is currently not part")
        dataset.to_zarr(
            store.zarr(f"{prefix}/statistics.zarr"), mode="w", zarr_format=3, consolidated=True
        )
    store.put(f"{prefix}/maps/t2m.png", b"picture %f" % content)
    return draft(cycle)


def draft(cycle: Cycle = CYCLE) -> ManifestDraft:
    return ManifestDraft(
        cycle=cycle,
        variant="hres",
        model=Model("mosaic", "0" * 64, "1.0"),
        ensemble=Ensemble(members=2, steps=4, step_hours=6, seed=1),
        inputs=(Input("simulated", cycle.init_time, "abc", {"hydrostatic": "ok"}),),
        assets=(
            AssetDraft(
                "statistics.zarr",
                "statistics",
                ZARR_MEDIA_TYPE,
                "Statistics",
                ("2m_temperature",),
                (6, 12, 18, 24),
                {"2m_temperature": (2, 3)},
                {"keepbits": {"2m_temperature": 12}},
            ),
            AssetDraft("maps/t2m.png", "maps", "image/png"),
        ),
        timeliness=Timeliness(cycle.init_time, started=NOW),
    )


@dataclasses.dataclass(frozen=True)
class FailingStore(ObjectStore):
    """Refuses every change after the first `allowed`."""

    left: list[int] = dataclasses.field(default_factory=lambda: [0])

    @classmethod
    def over(cls, store: ObjectStore, allowed: int) -> FailingStore:
        return cls(**vars(store), left=[allowed])

    def _spend(self) -> None:
        if self.left[0] == 0:
            raise StoreError("the store refuses", "a store that writes")
        self.left[0] -= 1

    def put(self, key: str, data: bytes) -> None:
        self._spend()
        super().put(key, data)

    def create(self, key: str, data: bytes) -> None:
        self._spend()
        super().create(key, data)

    def delete(self, key: str) -> None:
        self._spend()
        super().delete(key)

    def delete_all(self, prefix: str) -> int:
        self._spend()
        return super().delete_all(prefix)
