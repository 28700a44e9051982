"""How the arrays of an ensemble are cut: windows of steps, batches of members, parts of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mosaic_core.errors import ConfigurationError


@dataclass(frozen=True)
class Cut:
    """Members and steps in batches and windows, the unit that is written and resumed."""

    members: int
    steps: int
    batch: int
    window: int

    def __post_init__(self) -> None:
        if self.batch < 1 or self.window < 1:
            raise ConfigurationError(f"batch {self.batch}, window {self.window}", "1 or more")

    @classmethod
    def of(cls, identity: Mapping[str, Any]) -> Cut:
        """That of a stored ensemble, see `ForecastStore.stored_identity`."""
        return cls(*(int(identity[name]) for name in ("members", "steps", "batch", "window")))

    @cached_property
    def batches(self) -> tuple[range, ...]:
        """Members (from 1) of each batch."""
        return _pieces(self.members, self.batch)

    @cached_property
    def windows(self) -> tuple[range, ...]:
        """Steps (from 1) of each window."""
        return _pieces(self.steps, self.window)

    def batches_of(self, members: range) -> tuple[int, ...]:
        """Indices of the batches that begin among `members`: each belongs to exactly one part."""
        return tuple(i for i, batch in enumerate(self.batches) if batch.start in members)


def parts_of(members: int, members_per_run: int | None) -> tuple[range, ...]:
    """Members (from 1) of each part of a run; one part when `members_per_run` is None."""
    return _pieces(members, members_per_run or members)


def _pieces(total: int, size: int) -> tuple[range, ...]:
    last = total + 1
    return tuple(range(first, min(first + size, last)) for first in range(1, last, size))
