"""What forecasts are verified for: `config/verification.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mosaic_core.channels import Channel, Channels
from mosaic_core.errors import ConfigurationError
from mosaic_core.settings import build, read_config
from mosaic_core.verification.events import Event, EventSettings, expand
from mosaic_core.verification.regions import REGIONS, Region


@dataclass(frozen=True)
class VerificationSettings:
    """Settings of the verification.

    Attributes:
        channels: names; of those the ones that the model has are verified.
        regions: boxes by name.
        events: whose probabilities are verified, where the model has what they are made of.
        energy_levels: levels (hPa) of kinetic-energy spectra, where the model has both winds.
        max_age_days: initial times before that are no longer verified.
        at_most: lead times of forecasts that are verified in one go, newest first.
        climatology: a file of `mosaic_core.verification.climatology`; None takes a shipped one that
            is of the source's planet and the model's grid, and does without where there is none.
    """

    channels: tuple[str, ...]
    regions: Mapping[str, Region] = field(default_factory=lambda: REGIONS)
    events: tuple[EventSettings, ...] = ()
    energy_levels: tuple[int, ...] = (250, 500, 850)
    max_age_days: int = 20
    at_most: int = 400
    climatology: str | None = None

    def __post_init__(self) -> None:
        Channels.parse(self.channels)
        expand(self.events)
        for name in ("max_age_days", "at_most"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} {getattr(self, name)}", "1 or more")

    @classmethod
    def load(cls) -> VerificationSettings:
        """Read `config/verification.yaml`.

        Raises:
            ConfigurationError: not there, an unknown key or a wrong value.
        """
        content, path = read_config("", "verification")
        return build(cls, content, str(path))

    def of(self, channels: Channels) -> Channels:
        """The verified channels of a model.

        Raises:
            ConfigurationError: it has none of them.
        """
        found = [name for name in self.channels if name in channels.names]
        if not found:
            raise ConfigurationError(
                f"a model of {', '.join(channels.names)}",
                f"one of {', '.join(self.channels)}",
                "name channels of this model in config/verification.yaml",
            )
        return Channels.parse(found)

    def events_of(self, channels: Channels) -> tuple[Event, ...]:
        """The events that a model can have."""
        known = set(channels.names)
        return tuple(e for e in expand(self.events) if set(e.channels.names) <= known)

    def winds(self, channels: Channels) -> dict[int, tuple[Channel, Channel]]:
        """Both winds at each level of a spectrum that the model has."""
        pairs = {}
        for level in self.energy_levels:
            u, v = (Channel(f"{c}_component_of_wind", level) for c in "uv")
            if {u.name, v.name} <= set(channels.names):
                pairs[level] = (u, v)
        return pairs
