"""What was found and said while the catalog could not be reached, kept in a small file.

The file also names the alerts that were open when the catalog was last there, so that an outage
does not announce them anew. Once the catalog is back everything in it is handed over. Messages that
wait in the catalog when it goes away are sent when it is back, and so after those of the outage.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.monitoring.conditions import Finding
from mosaic_core.monitoring.kinds import Alerting
from mosaic_core.settings import build

_log = logging.getLogger(__name__)


@dataclass
class Said:
    """One message for one channel; `sent` is empty until it has arrived."""

    channel: str
    event: str
    number: int
    attempts: int = 0
    sent: str = ""
    problem: str = ""


@dataclass
class Entry:
    """One alert; times in ISO form, UTC."""

    kind: str
    subject: str
    severity: str
    text: str
    opened: str
    told: str
    cycle: str = ""
    closed: str = ""
    said: list[Said] = field(default_factory=list)

    @property
    def id(self) -> str:
        identity = f"{self.kind} {self.subject} {self.opened}"
        return "outage-" + hashlib.sha256(identity.encode()).hexdigest()[:12]


@dataclass
class Outage:
    """The content of the file: `known` are (kind, subject) of alerts that the catalog has open."""

    path: Path
    known: list[tuple[str, str]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Outage:
        """An unreadable file is as good as none: at worst something is said twice."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            known = [(str(kind), str(subject)) for kind, subject in content["known"]]
            entries = [_entry(item) for item in content["entries"]]
        except FileNotFoundError:
            return cls(path)
        except Exception as error:
            _log.warning("%s cannot be read and is begun anew: %r", path, error)
            return cls(path)
        return cls(path, known, entries)

    def save(self) -> None:
        """A file that cannot be written makes the next pass repeat itself; that is logged."""
        content = {"known": self.known, "entries": [asdict(entry) for entry in self.entries]}
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(content, indent=1), encoding="utf-8")
            beside.replace(self.path)
        except OSError as error:
            _log.warning("%s cannot be written: %s", self.path, error)

    def remember(self, known: Sequence[tuple[str, str]]) -> None:
        """Note what the catalog has open."""
        if sorted(known) != sorted(self.known):
            self.known = list(known)
            self.save()

    def update(
        self, findings: Sequence[Finding], looked: frozenset[str], alerting: Alerting, now: datetime
    ) -> None:
        """Open, repeat and close what only this file knows."""
        stamp = now.isoformat()
        found = {(finding.kind, finding.subject): finding for finding in findings}
        still = {(e.kind, e.subject): e for e in self.entries if not e.closed}
        for key, finding in found.items():
            if key in self.known:
                continue
            entry = still.get(key)
            if entry is None:
                entry = Entry(
                    finding.kind, finding.subject, finding.severity, finding.text, stamp, stamp,
                    finding.cycle.id if finding.cycle else "",
                )  # fmt: skip
                self.entries.append(entry)
                _say(entry, "opened", 0, alerting.channels_of(entry.kind))
            else:
                entry.text = finding.text
                _repeat(entry, alerting, now)
        for key, entry in still.items():
            if key not in found and entry.kind in looked:
                entry.closed = stamp
                _say(entry, "closed", 0, [s.channel for s in entry.said if s.event == "opened"])

    def hand_over(self, catalog: Catalog) -> None:
        """Give the catalog what it missed, with what was said about it, and forget it."""
        for entry in list(self.entries):
            alert, _ = catalog.open_alert(
                entry.kind,
                subject=entry.subject,
                severity=entry.severity,
                text=entry.text,
                cycle=Cycle.parse(entry.cycle) if entry.cycle else None,
                opened=datetime.fromisoformat(entry.opened),
            )
            for said in entry.said:
                sent = datetime.fromisoformat(said.sent) if said.sent else None
                catalog.record_message(alert.id, said.channel, said.event, said.number, sent)
            if entry.closed:
                catalog.close_alert(entry.kind, entry.subject)
            self.entries.remove(entry)
            self.save()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One watcher at a time on this host; where no lock can be made, without."""
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = stack.enter_context(path.with_suffix(".lock").open("w"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            _log.warning("no lock beside %s: %s", path, error)
        yield


def _repeat(entry: Entry, alerting: Alerting, now: datetime) -> None:
    after = alerting.repeat_after(entry.kind)
    waiting = any(not said.sent for said in entry.said)
    if after is None or waiting or now - datetime.fromisoformat(entry.told) < after:
        return
    entry.told = now.isoformat()
    number = max((said.number for said in entry.said), default=0) + 1
    _say(entry, "repeated", number, alerting.channels_of(entry.kind))


def _say(entry: Entry, event: str, number: int, channels: Sequence[str]) -> None:
    entry.said += [Said(channel, event, number) for channel in channels]


def _entry(item: dict[str, object]) -> Entry:
    said = [build(Said, one, "said") for one in item.pop("said")]  # type: ignore[attr-defined]
    entry = build(Entry, item, "entry")
    entry.said = said
    return entry
