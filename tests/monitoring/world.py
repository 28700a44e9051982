"""A site to watch: a catalog and a store whose history is written by hand, and a clock."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.catalog.models import ForecastRun
from mosaic_core.cycle import Cycle
from mosaic_core.monitoring.facts import Watched
from mosaic_core.monitoring.kinds import Alerting
from mosaic_core.monitoring.watch import Report, watch
from mosaic_core.profile import Profile
from mosaic_core.publication.manifest import Missing, Quality
from mosaic_core.publication.publish import publish
from mosaic_core.settings import config_folder
from mosaic_core.storage import ObjectStore, open_store
from tests.publication.helpers import draft, stage

CYCLE = Cycle.parse("2026-11-20T00Z")
SOURCE = "grib"
VARIANT = "hres"


def at(hours: float, cycle: Cycle = CYCLE) -> datetime:
    """T+hours."""
    return cycle.init_time + timedelta(hours=hours)


def settings(folder: Path, channels: Mapping[str, Any], **changes: Any) -> Path:
    """A file of the shipped kinds with other channels; `changes` are of kinds by name."""
    content = yaml.safe_load((config_folder() / "alerts.yaml").read_text())
    for kind in content["kinds"].values():
        kind.pop("channels", None)
        kind.pop("repeat_hours", None)
    for name, values in changes.items():
        content["kinds"][name.replace("_", "-")] |= values
    content["channels"] = dict(channels)
    content["defaults"] = {"channels": list(channels), "repeat_hours": 2}
    content |= {"state": str(folder / "alerts.json"), "host": "watcher"}
    path = folder / "alerts.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@dataclass
class World:
    """A site in a folder; `hours` after the initial time of CYCLE it is looked at.

    `free` is the share of the disk that is free.
    """

    folder: Path
    catalog_url: str = ""
    channels: Mapping[str, Any] = field(default_factory=dict)
    free: float = 0.5
    changes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.catalog_url = self.catalog_url or f"sqlite:///{self.folder}/catalog.db"
        self.store: ObjectStore = open_store(self.folder / "store")
        profile = Profile(
            name="test",
            model="hres",
            source={"kind": "grib", "path": str(self.folder / "nothing")},
            store=str(self.folder / "store"),
            catalog=self.catalog_url,
            members=2,
            steps=4,
        )
        alerting = Alerting.load(str(settings(self.folder, self.channels, **self.changes)))
        self.site = Watched(profile, VARIANT, SOURCE, alerting)

    def look(self, hours: float, **how: Any) -> Report:
        """Watch the site at T+hours."""
        return watch(self.site, at(hours), statvfs=self._statvfs, **how)

    def catalog(self, hours: float = 7.0) -> Catalog:
        """The catalog as somebody sees it who works at T+hours."""
        return Catalog(self.catalog_url, actor="worker:1", clock=lambda: at(hours))

    def without_catalog(self, url: str) -> None:
        self.site = replace(self.site, profile=replace(self.site.profile, catalog=url))

    def with_catalog(self) -> None:
        self.without_catalog(self.catalog_url)

    def open_kinds(self) -> set[str]:
        with self.catalog() as catalog:
            return {alert.kind for alert in catalog.alerts()}

    def publish_before(self) -> None:
        """The cycle before is published, so that the site has a history and is well."""
        self.publish(0.5, CYCLE.predecessor)

    def accept(self, hours: float, cycle: Cycle = CYCLE, digest: str = "a") -> None:
        with self.catalog(hours) as catalog:
            catalog.record_analysis(
                cycle, source=SOURCE, digest=digest, checks={}, state="accepted"
            )

    def refuse(self, hours: float, error: str, text: str = "humidity is out of bounds") -> None:
        """An attempt that does not get beyond the analyses, as `stages.ingest` records it."""
        with self.catalog(hours) as catalog:
            if error == "AnalysisRejected":
                catalog.record_analysis(
                    CYCLE, source=SOURCE, digest="b", checks={"bounds": "failed"}, state="rejected"
                )
            catalog.record_event(
                "ingest-failed", SOURCE, cycle=CYCLE, variant=VARIANT, error=f"{error}: {text}"
            )
            run = catalog.start_run(CYCLE, VARIANT, revision=1)
            catalog.set_state(run, "failed", error=text)

    def begin(
        self, hours: float, *states: str, cycle: Cycle = CYCLE, **changes: Any
    ) -> ForecastRun:
        with self.catalog(hours) as catalog:
            run = catalog.start_run(cycle, VARIANT, revision=1, host="worker")
            for state in states:
                catalog.set_state(run, state, **(changes if state == states[-1] else {}))
            return run

    def publish(
        self, hours: float, cycle: Cycle = CYCLE, flags: tuple[str, ...] = (), missing: str = ""
    ) -> None:
        """Accepted, computed and published at T+hours; in the store too."""
        self.accept(hours, cycle)
        plan = stage(self.store, cycle)
        plan = replace(
            draft(cycle),
            quality=Quality(bool(flags), flags),
            missing=(Missing(missing, "no font"),) if missing else (),
            assets=plan.assets,
        )
        published = publish(self.store, plan, now=at(hours)).manifest
        with self.catalog(hours) as catalog:
            run = catalog.start_run(cycle, VARIANT, revision=1, host="worker")
            timings = {"ingest": 10.0, "forecast": 80.0, "products": 20.0, "publish": 5.0}
            for state in ("forecasting", "products", "publishing"):
                catalog.set_state(run, state)
            for asset in published.assets:
                catalog.record_product(
                    run, key=asset.key, name=asset.product, state="published", size=asset.bytes,
                    sha256=asset.sha256,
                )  # fmt: skip
            catalog.set_state(run, "published", timings=timings, published=at(hours))

    @property
    def _statvfs(self) -> Callable[[str], os.statvfs_result]:
        blocks, free = 1_000_000, int(1_000_000 * self.free)
        values = (4096, 4096, blocks, free, free, blocks, blocks // 2, blocks // 2, 0, 255)
        return lambda _path: os.statvfs_result(values)
