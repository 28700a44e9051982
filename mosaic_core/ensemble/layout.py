"""What one ensemble forecast is, and how its arrays are cut into windows and batches."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mosaic_core.channels import Channels
from mosaic_core.cycle import Cycle
from mosaic_core.ensemble.cut import Cut
from mosaic_core.errors import ConfigurationError
from mosaic_core.grid import LatLonGrid


@dataclass(frozen=True)
class EnsembleSpec:
    """Size of an ensemble: members 1..`members`, steps 1..`steps`, the seed of its noise."""

    members: int
    steps: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.members < 1 or self.steps < 1:
            raise ConfigurationError(
                f"{self.members} members, {self.steps} steps", "one or more of each"
            )


@dataclass(frozen=True)
class ForecastLayout:
    """Everything that the bytes of an ensemble forecast follow from, and its cut.

    Attributes:
        weights: sha256 of the model weights.
        state: digest of the initial state.
        precision: type of the matrix products.
        code_version, device: what computes; another one would give other bits.
        keepbits: mantissa bits kept of each variable; variables not named are lossless.
        batch: members that are computed together; results are bit-identical only for the same.
        window: steps that are written together.
    """

    cycle: Cycle
    variant: str
    grid: LatLonGrid
    channels: Channels
    step_hours: int
    spec: EnsembleSpec
    weights: str
    state: str
    precision: str
    batch: int
    code_version: str = ""
    device: str = "cpu"
    window: int = 8
    keepbits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.keepbits) - set(self.channels.variables))
        if unknown or any(not 1 <= bits <= 23 for bits in self.keepbits.values()):
            raise ConfigurationError(
                f"keepbits {dict(self.keepbits)}", "1 to 23 bits for variables of the model"
            )
        sets = {levels for levels in self.channels.variables.values() if levels}
        if len({frozenset(levels) for levels in sets}) > 1:
            raise ConfigurationError(
                "variables on different pressure levels: "
                + "; ".join(f"{n} at {list(v)}" for n, v in self.channels.variables.items() if v),
                "one set of levels for all: the store has one level axis, and nothing is padded",
                "choose channels on the same levels",
            )
        _ = self.cut  # refuses batches and windows of nothing

    @cached_property
    def cut(self) -> Cut:
        return Cut(self.spec.members, self.spec.steps, self.batch, self.window)

    @property
    def batches(self) -> tuple[range, ...]:
        """Members (from 1) of each batch."""
        return self.cut.batches

    @property
    def windows(self) -> tuple[range, ...]:
        """Steps (from 1) of each window."""
        return self.cut.windows

    def identity(self) -> dict[str, Any]:
        """What must be equal for a forecast to be resumed; plain values."""
        return {
            "cycle": self.cycle.id,
            "variant": self.variant,
            "grid": self.grid.digest,
            "channels": list(self.channels.names),
            "step_hours": self.step_hours,
            "members": self.spec.members,
            "steps": self.spec.steps,
            "seed": self.spec.seed,
            "weights": self.weights,
            "state": self.state,
            "precision": self.precision,
            "code_version": self.code_version,
            "device": self.device,
            "keepbits": dict(sorted(self.keepbits.items())),
            "window": self.window,
        }

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """In words, where a stored identity is not this one."""
        own = self.identity()
        return [
            f"{name} {_short(stored.get(name))} is stored, this run has {_short(value)}"
            for name, value in own.items()
            if json.dumps(stored.get(name)) != json.dumps(value)
        ]


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
