"""What is said about an alert, the same on every channel."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from mosaic_core.cycle import Cycle

EventName = Literal["opened", "repeated", "closed", "test"]
CLOUD_EVENT: Final = "io.github.mosaic-forecast.alert.{}.v1"
_VERBS: Final[dict[str, str]] = {"repeated": "still ", "closed": "over: ", "test": "test: "}
_PASSWORD = re.compile(r"(://[^/:@\s]*):[^/@\s]*@")


@dataclass(frozen=True)
class Message:
    """One thing said about one alert.

    Attributes:
        id: the same at every attempt to deliver it, so that a receiver can drop a second one.
        number: of the alert in the catalog; None while the catalog cannot be reached.
        subject: what it is about, within its kind.
        opened: since when the alert is open, UTC.
        when: of this event, UTC.
        runbook: where it stands what to do.
    """

    event: EventName
    id: str
    kind: str
    severity: str
    subject: str
    text: str
    opened: datetime
    when: datetime
    number: int | None = None
    cycle: Cycle | None = None
    host: str = ""
    runbook: str = field(default="", repr=False)

    @property
    def key(self) -> str:
        """Of the alert: the same at its opening and its closing."""
        return f"mosaic/{self.kind}/{self.subject}"

    @property
    def title(self) -> str:
        return f"[{self.severity}] {_VERBS.get(self.event, '')}{self.kind} {self.subject}".rstrip()

    @property
    def body(self) -> str:
        """The text, and below it what helps to act on it."""
        since = f"open since {self.opened:%Y-%m-%d %H:%M} UTC"
        if self.event == "closed":
            since = f"over at {self.when:%Y-%m-%d %H:%M} UTC, after {duration(self.age)}"
        elif self.event == "repeated":
            since += f", for {duration(self.age)}"
        lines = [self.text, since]
        if self.number is not None and self.event in ("opened", "repeated"):
            lines.append(f"seen: mosaic alerts ack {self.number}")
        if self.runbook:
            lines.append(f"what to do: {self.runbook}")
        return "\n".join(lines)

    @property
    def age(self) -> float:
        """Seconds from the opening to this event."""
        return max(0.0, (self.when - self.opened).total_seconds())

    def as_cloud_event(self) -> dict[str, Any]:
        """CloudEvents 1.0, for a plain webhook."""
        return {
            "specversion": "1.0",
            "id": self.id,
            "source": f"mosaic/{self.host}",
            "type": CLOUD_EVENT.format(self.event),
            "subject": f"{self.kind} {self.subject}".strip(),
            "time": utc(self.when),
            "datacontenttype": "application/json",
            "data": {
                "event": self.event,
                "number": self.number,
                "key": self.key,
                "kind": self.kind,
                "severity": self.severity,
                "subject": self.subject,
                "cycle": self.cycle.id if self.cycle else None,
                "text": self.text,
                "opened": utc(self.opened),
                "runbook": self.runbook,
            },
        }


def without_passwords(text: str) -> str:
    """The same text with `***` for the password of every URL in it."""
    return _PASSWORD.sub(r"\1:***@", text)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `1 h 20 min`, `3 d 4 h`."""
    minutes, rest = divmod(int(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def utc(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
