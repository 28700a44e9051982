"""What is said of a forecast: to the makers of its products, and in its manifest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC
from typing import Any

import numpy as np
import xarray as xr

from mosaic_core import dims
from mosaic_core.analysis.store import COMMIT
from mosaic_core.analysis.store import analysis_key as stored_key
from mosaic_core.initial_state import InitialState
from mosaic_core.pipeline.references import ProductResult
from mosaic_core.pipeline.site import Site
from mosaic_core.products.product import UNTRAINED, ProductContext, ProductFailure
from mosaic_core.publication import layout
from mosaic_core.publication.manifest import (
    ZARR_MEDIA_TYPE,
    AssetDraft,
    Ensemble,
    Input,
    ManifestDraft,
    Missing,
    Model,
    Quality,
    Timeliness,
)


def inputs_of(site: Site, state: InitialState) -> tuple[Input, ...]:
    """The stored analyses of a state, with their digests and the verdict of each check."""
    found = []
    for valid_time in state.valid_times:
        key = stored_key(site.source.name, valid_time)
        commit = json.loads(site.store.get(f"{key}/{COMMIT}"))
        found.append(
            Input(
                source=site.source.name,
                valid_time=valid_time,
                digest=commit["digest"],
                checks={check["check"]: check["status"] for check in commit["checks"]},
                url=site.store.url(key),
            )
        )
    return tuple(found)


def context_of(site: Site, state: InitialState) -> ProductContext:
    """What the products say about the forecast."""
    version = site.model.version
    return ProductContext(
        cycle=state.cycle,
        variant=site.config.name,
        model=f"Mosaic {version.text}",
        members=site.profile.members,
        step_hours=site.config.step_hours,
        trained=version.trained,
        quality=tuple(f"Degraded input: {reason}" for reason in state.degraded),
        licence=version.licence,
        attribution=version.attribution,
        static=_other_planet(site),
        analysis=analysis_of(state),
    )


def _other_planet(site: Site) -> xr.Dataset | None:
    """Static fields of a source that simulates its own planet."""
    if not hasattr(site.source, "static_fields"):
        return None
    grid = site.config.lat_lon
    planes = np.moveaxis(site.static, 2, 0)
    return xr.Dataset(
        {
            name: ((dims.LONGITUDE, dims.LATITUDE), plane)
            for name, plane in zip(site.config.static, planes, strict=True)
        },
        {dims.LATITUDE: list(grid.latitudes), dims.LONGITUDE: list(grid.longitudes)},
    )


def analysis_of(state: InitialState) -> xr.Dataset:
    """The initial state as an analysis dataset: valid_time, level, latitude, longitude."""
    levels = sorted({c.level for c in state.channels if c.level is not None})
    variables: dict[str, Any] = {}
    for name, own in state.channels.variables.items():
        planes = {
            channel.level: state.values[..., i].transpose(0, 2, 1)
            for i, channel in enumerate(state.channels)
            if channel.variable == name
        }
        if not own:
            variables[name] = ((dims.VALID_TIME, dims.LATITUDE, dims.LONGITUDE), planes[None])
            continue
        blank = np.full_like(next(iter(planes.values())), np.nan)
        stacked = np.stack([planes.get(level, blank) for level in levels], axis=1)
        variables[name] = ((dims.VALID_TIME, dims.LEVEL, dims.LATITUDE, dims.LONGITUDE), stacked)
    times = [np.datetime64(t.astimezone(UTC).replace(tzinfo=None), "ns") for t in state.valid_times]
    coordinates: dict[str, Any] = {
        dims.VALID_TIME: times,
        dims.LATITUDE: list(state.grid.latitudes),
        dims.LONGITUDE: list(state.grid.longitudes),
    }
    if levels:
        coordinates[dims.LEVEL] = levels
    return xr.Dataset(variables, coordinates)


def draft_of(
    site: Site,
    state: InitialState,
    results: Sequence[ProductResult],
    timeliness: Timeliness,
    revision: int,
) -> ManifestDraft:
    """The manifest of the ensemble and the products that are whole; it says what is missing."""
    profile, config, version = site.profile, site.config, site.model.version
    prefix = layout.forecast_prefix(config.name, state.cycle, revision)
    assets = [_ensemble_asset(site)]
    missing = []
    for result in results:
        if isinstance(result, ProductFailure):
            missing.append(Missing(result.id, result.reason))
            continue
        for asset in result.assets:
            assets.append(
                AssetDraft(
                    key=asset.key.removeprefix(f"{prefix}/"),
                    product=result.id,
                    media_type=asset.media_type,
                    title=asset.title,
                    variables=tuple(asset.variables),
                    lead_hours=tuple(int(hours) for hours in asset.lead_hours),
                    chunks=dict(asset.chunks),
                    attributes={"notes": list(result.notes)} if result.notes else {},
                    sha256=asset.sha256,
                )
            )
    flags = [f"Degraded input: {reason}" for reason in state.degraded]
    if not version.trained:
        flags.insert(0, UNTRAINED)
    return ManifestDraft(
        cycle=state.cycle,
        variant=config.name,
        model=Model(
            name=f"Mosaic {config.name}",
            checkpoint_sha256=version.sha256,
            code_version=version.code_version,
            notes="" if version.trained else f"{UNTRAINED}.",
        ),
        ensemble=Ensemble(profile.members, profile.steps, config.step_hours, profile.seed),
        inputs=inputs_of(site, state),
        assets=tuple(assets),
        timeliness=timeliness,
        missing=tuple(missing),
        quality=Quality(degraded=bool(state.degraded or missing), flags=tuple(flags)),
        licence=version.licence,
        attribution=version.attribution or "mosaic-forecast",
    )


def _ensemble_asset(site: Site) -> AssetDraft:
    profile, config = site.profile, site.config
    hours = tuple(config.step_hours * (i + 1) for i in range(profile.steps))
    return AssetDraft(
        key="ensemble.zarr",
        product="ensemble",
        media_type=ZARR_MEDIA_TYPE,
        title="Every member, step and channel",
        variables=tuple(config.channel_set.variables),
        lead_hours=hours,
        attributes={"keepbits": dict(profile.keepbits)} if profile.keepbits else {},
    )
