"""A forecast cycle: the initial time, and every time that follows from it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mosaic_core.errors import ConfigurationError

_TEXT = re.compile(
    r"^(\d{4})-?(\d{2})-?(\d{2})[T ]?(\d{2})(?::?(\d{2})(?::?(\d{2}))?)?(Z|\+00:?00|UTC)?$"
)


@dataclass(frozen=True, order=True)
class Cycle:
    """One initial time in UTC, on the hour, at 00, 06, 12 or 18.

    Raises:
        ConfigurationError: the time has no zone, or is not one of the four synoptic hours.
    """

    init_time: datetime

    def __post_init__(self) -> None:
        time = self.init_time
        if time.tzinfo is None:
            raise ConfigurationError(
                f"initial time {time.isoformat()} has no time zone",
                "a time in UTC",
                "write it as 2026-11-20T00Z",
            )
        time = time.astimezone(UTC)
        if (time.hour % 6, time.minute, time.second, time.microsecond) != (0, 0, 0, 0):
            raise ConfigurationError(
                f"initial time {time.isoformat()} is not a cycle",
                "00, 06, 12 or 18 UTC",
                "write it as 2026-11-20T00Z",
            )
        object.__setattr__(self, "init_time", time)

    @classmethod
    def parse(cls, text: str) -> Cycle:
        """Read `2026-11-20T00Z`, `20261120T00Z`, `2026-11-20T00:00:00+00:00`; always UTC."""
        match = _TEXT.match(text.strip())
        if match is None:
            raise ConfigurationError(
                f"cycle {text!r} cannot be read", "a UTC time such as 2026-11-20T00Z"
            )
        parts = [int(part or 0) for part in match.groups()[:6]]
        try:
            time = datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]
        except ValueError as error:
            raise ConfigurationError(
                f"cycle {text!r} is not a date ({error})", "a UTC time such as 2026-11-20T00Z"
            ) from error
        return cls(time)

    @classmethod
    def latest_before(cls, time: datetime) -> Cycle:
        """The newest cycle whose initial time is not after `time` (which needs a zone)."""
        if time.tzinfo is None:
            raise ConfigurationError(f"{time.isoformat()} has no time zone", "a time in UTC")
        time = time.astimezone(UTC)
        return cls(time.replace(hour=time.hour // 6 * 6, minute=0, second=0, microsecond=0))

    @property
    def id(self) -> str:
        """Compact ISO form, `20261120T00Z`."""
        return self.init_time.strftime("%Y%m%dT%HZ")

    def __str__(self) -> str:
        return self.init_time.strftime("%Y-%m-%dT%HZ")

    def shift(self, hours: int) -> Cycle:
        """The cycle `hours` later (earlier when negative)."""
        return Cycle(self.init_time + timedelta(hours=hours))

    @property
    def predecessor(self) -> Cycle:
        """The cycle six hours earlier."""
        return self.shift(-6)

    def valid_times(self, steps: int, step_hours: int) -> list[datetime]:
        """Valid times of forecast steps 1..`steps`."""
        return [self.init_time + timedelta(hours=step_hours * i) for i in range(1, steps + 1)]

    def history_times(self, states: int, step_hours: int) -> list[datetime]:
        """Valid times of the `states` analyses that start a forecast, oldest first."""
        return [self.init_time - timedelta(hours=step_hours * i) for i in reversed(range(states))]
