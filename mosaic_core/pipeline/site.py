"""A site: what a profile names, opened and checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mosaic_core.analysis.checks import Check, default_checks
from mosaic_core.analysis.checks.bounds import bounds_of, climatology_of
from mosaic_core.analysis.checks.catalogue import CheckSettings
from mosaic_core.analysis.sources.base import Source
from mosaic_core.analysis.sources.registry import make_source
from mosaic_core.analysis.static import StaticFields, shipped_static_fields
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.errors import ConfigurationError
from mosaic_core.initial_state import InitialState
from mosaic_core.model.config import ModelConfig
from mosaic_core.products.product import Product, load_products
from mosaic_core.profile import Profile
from mosaic_core.publication.events import Target
from mosaic_core.storage import ObjectStore, open_store

if TYPE_CHECKING:
    from mosaic_core.model.checkpoint import LoadedModel


@dataclass(frozen=True)
class Site:
    """Everything a stage needs that is not an argument of it."""

    profile: Profile
    config: ModelConfig
    source: Source
    store: ObjectStore
    catalog: Catalog
    products: tuple[Product, ...]
    checks: tuple[Check, ...]
    last_state: dict[str, InitialState] = field(default_factory=dict, compare=False)
    """The state that was read last: the steps of one process need it one after the other."""

    @cached_property
    def static(self) -> NDArray[np.float32]:
        """Static fields of the planet, (longitude, latitude, field), in the model's order.

        From the weights file, the profile's file, the source (a simulated planet has its own), or
        the package, in this order.
        """
        if self.profile.weights_file:
            return np.asarray(self.model.file.static.numpy())
        if self.profile.static:
            from mosaic_core.model.checkpoint import read_static

            return read_static(Path(self.profile.static), self.config).numpy()
        own = getattr(self.source, "static_fields", None)
        if own is not None:
            return np.asarray(own(self.config.lat_lon), np.float32)
        return _shipped(self.config)

    @cached_property
    def static_fields(self) -> StaticFields:
        """Land and mountains, as the checks of analyses take them."""
        planes = dict(zip(self.config.static, np.moveaxis(self.static, 2, 0), strict=True))
        return StaticFields(
            self.config.lat_lon,
            np.ascontiguousarray(planes["geopotential_at_surface"].T),
            np.clip(np.ascontiguousarray(planes["land_sea_mask"].T), 0, 1),
        )

    @cached_property
    def model(self) -> ModelFileAtSite:
        """The model file; read when it is first asked for."""
        return ModelFileAtSite(self)

    @property
    def targets(self) -> tuple[Target, ...]:
        """Who is told of a publication."""
        events = self.profile.events
        found = []
        if events.webhook:
            found.append(Target("webhook", events.webhook, events.secret or None))
        if events.sns_topic:
            found.append(Target("sns", events.sns_topic))
        return tuple(found)


class ModelFileAtSite:
    """The weights that a site uses, in memory once."""

    def __init__(self, site: Site) -> None:
        from mosaic_core.model import checkpoint

        self._site = site
        path = site.profile.weights_file
        if path is not None:
            self.file = checkpoint.read_model(path)
            checkpoint.require_fit(site.config, self.file)
        else:
            import torch

            mean, std = _statistics(site)
            self.file = checkpoint.untrained(
                site.config,
                torch.from_numpy(mean),
                torch.from_numpy(std),
                torch.from_numpy(site.static.copy()),
            )
        self.version = checkpoint.version_of(site.config, self.file, path)

    def load(self) -> LoadedModel:
        """The network on the site's device, its kernels chosen.

        Raises:
            DeviceError: the device or the required kernel is not there.
            CheckpointError: the file is not of this variant.
        """
        import torch

        from mosaic_core.kernels.dispatch import require
        from mosaic_core.model import checkpoint

        profile = self._site.profile
        if profile.threads:
            torch.set_num_threads(profile.threads)
        device = checkpoint.pick_device(profile.device)
        if profile.require:
            require(profile.require, device)
        return checkpoint.load_model(self._site.config, self.file, self.version, device)


def open_site(profile: Profile, *, create: bool = True) -> Site:
    """Open everything a profile names; nothing is computed and nothing large is read.

    Args:
        create: make the folder of the store and the catalog when they are not there. False is for
            those who only read the store: the catalog is then not connected before it is asked.

    Raises:
        MosaicError: what cannot be opened, by name.
    """
    config = ModelConfig.load(profile.model)
    source = make_source(profile.source, f"profile {profile.name}: source")
    climatology = climatology_of(source, config.channel_set)
    checks = default_checks(
        CheckSettings(leave_out=profile.leave_out_checks, climatology=climatology)
    )
    products = load_products(list(profile.products))
    if profile.weights_file is not None and not profile.weights_file.is_file():
        raise ConfigurationError(
            f"profile {profile.name}: no weights at {profile.weights_file}",
            "a converted model file, `shipped` where the package has one, or `untrained`",
            "`mosaic model fetch` and `mosaic model convert` make one",
        )
    return Site(
        profile,
        config,
        source,
        open_store(profile.store, create=create),
        Catalog(profile.catalog, check=create),
        tuple(products),
        checks,
    )


def _shipped(config: ModelConfig) -> NDArray[np.float32]:
    fields = shipped_static_fields(config.lat_lon)
    known: dict[str, NDArray[Any]] = {
        "geopotential_at_surface": fields.geopotential_at_surface.T,
        "land_sea_mask": fields.land_sea_mask.T,
    }
    absent = [name for name in config.static if name not in known]
    if absent:
        raise ConfigurationError(
            f"the package ships no {', '.join(absent)}, which model {config.name!r} takes",
            f"a file of {', '.join(config.static)}",
            "name one in the profile: `static: FILE.npz`",
        )
    return np.stack([known[name] for name in config.static], axis=-1).astype(np.float32)


def _statistics(site: Site) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and spread of each channel for untrained weights: round climatological numbers."""
    own = getattr(site.source, "statistics", None)
    if site.profile.statistics:
        from mosaic_core.model.checkpoint import read_normalisation

        mean, std = read_normalisation(Path(site.profile.statistics))
        return mean.numpy(), std.numpy()
    if own is not None:
        mean, std = own(site.config.channel_set)
        return np.asarray(mean, np.float32), np.asarray(std, np.float32)
    bounds = [bounds_of(channel) for channel in site.config.channel_set]
    return (
        np.array([b.mean for b in bounds], np.float32),
        np.array([b.spread for b in bounds], np.float32),
    )
