"""Kinds of alert, as `config/alerts.yaml` sets them. A kind that is not in it is not watched."""

from __future__ import annotations

import difflib
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

from mosaic_core.errors import ConfigurationError
from mosaic_core.monitoring.channels import (
    PREFECT,
    Channel,
    prefect_channel,
    read_channels,
    resolve,
)
from mosaic_core.settings import build, read_config

Need = Literal["catalog", "store", "host"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What every kind of alert has.

    Attributes:
        text: a template; which `{fields}` there are depends on the kind.
        channels: who is told; None is `defaults.channels`.
        repeat_hours: after how long it is said again while open and not acknowledged; None never.
    """

    severity: Literal["critical", "warning", "info"]
    text: str
    channels: tuple[str, ...] | None = None
    repeat_hours: float | None = None


@dataclass(frozen=True, kw_only=True)
class Deadline(Kind):
    """`hours` after the initial time; None takes the profile's `cut_off_hours`."""

    hours: float | None = None


@dataclass(frozen=True, kw_only=True)
class Attempts(Kind):
    """From this many attempts on."""

    attempts: int


@dataclass(frozen=True, kw_only=True)
class Minutes(Kind):
    """After this many minutes."""

    minutes: float


@dataclass(frozen=True, kw_only=True)
class Hours(Kind):
    """After, or for, this many hours."""

    hours: float


@dataclass(frozen=True, kw_only=True)
class Disk(Kind):
    """Less than this share of bytes or of inodes is free, where store and catalog are files and
    on `paths`."""

    free_percent: float
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Drift(Kind):
    """The median score of the last `recent_days` is `factor` times that of the `reference_days`
    before them, for at least `least_series` series of variable, level, region and lead time with
    `least_cycles` cycles on both sides."""

    metrics: tuple[str, ...]
    recent_days: float
    reference_days: float
    factor: float
    least_cycles: int
    least_series: int


@dataclass(frozen=True)
class Form:
    """What a kind takes: its settings, what has to be readable, the fields of its text, and
    whether its subjects begin with the variant or with the host."""

    settings: type[Kind]
    need: Need
    fields: tuple[str, ...]
    scope: Literal["variant", "host"] = "variant"


_CYCLE: Final = ("variant", "cycle", "hours")
FORMS: Final[Mapping[str, Form]] = {
    "analysis-late": Form(Deadline, "catalog", (*_CYCLE, "source")),
    "analysis-missing": Form(Deadline, "catalog", (*_CYCLE, "source")),
    "checks-failed": Form(Kind, "catalog", ("variant", "cycle", "source", "problem")),
    "stage-failed": Form(Attempts, "catalog", ("variant", "cycle", "stage", "attempts", "problem")),
    "attempts-exhausted": Form(Attempts, "catalog", ("variant", "cycle", "attempts", "problem")),
    "not-published": Form(Deadline, "catalog", (*_CYCLE, "state")),
    "worker-dead": Form(Minutes, "catalog", ("variant", "cycle", "state", "minutes", "host")),
    "claim-held-long": Form(Hours, "catalog", ("variant", "cycle", "hours", "owner")),
    "notice-undelivered": Form(Hours, "catalog", ("variant", "cycle", "problem")),
    "alert-undelivered": Form(Minutes, "catalog", ("channel", "count", "problem", "minutes")),
    "verification-drift": Form(
        Drift, "catalog", ("variant", "metric", "ratio", "worst", "count", "of")
    ),
    "latest-behind": Form(Minutes, "store", ("variant", "cycle", "latest")),
    "degraded": Form(Kind, "store", ("variant", "cycle", "problem")),
    "publication-damaged": Form(Kind, "store", ("variant", "problem")),
    "store-unreachable": Form(Kind, "host", ("store", "host", "problem"), "host"),
    "disk-nearly-full": Form(Disk, "host", ("path", "host", "free", "what"), "host"),
    "catalog-unreachable": Form(Kind, "host", ("host", "problem"), "host"),
}


@dataclass(frozen=True)
class Defaults:
    """What kinds that say nothing else have."""

    channels: tuple[str, ...] = ()
    repeat_hours: float | None = None


@dataclass(frozen=True)
class Scores:
    """Which scores are exported as metrics and looked at for drift: every combination there is."""

    metrics: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    lead_hours: tuple[int, ...] = ()
    regions: tuple[str, ...] = ("global",)


@dataclass(frozen=True)
class Alerting:
    """All of `config/alerts.yaml`.

    Attributes:
        look_back_hours: cycles older than this are not watched any more; their alerts close.
        state: file that remembers what was said while the catalog could not be reached.
        host: how this machine is called in alerts; its network name when empty.
        runbook: address of the runbook; the kind is appended as `#kind`.
    """

    kinds: Mapping[str, Kind]
    channels: Mapping[str, Channel]
    defaults: Defaults = Defaults()
    scores: Scores = Scores()
    look_back_hours: float = 24.0
    state: str = "mosaic-data/alerts.json"
    host: str = ""
    runbook: str = ""

    @classmethod
    def load(cls, name: str = "alerts") -> Alerting:
        """Read `config/<name>.yaml`, or the file at a path that ends in .yaml.

        Raises:
            ConfigurationError: an unknown kind, channel, key or field of a text; the nearest
                known one is named.
        """
        content, path = read_config("", name)
        where = str(path)
        raw = build(_File, content, where)
        channels = read_channels(raw.channels, f"{where}: channels")
        kinds = {k: _kind(k, v, f"{where}: kinds: {k}") for k, v in raw.kinds.items()}
        named = {c: f"kinds: {k}" for k, kind in kinds.items() for c in kind.channels or ()}
        for name_, at in {**dict.fromkeys(raw.defaults.channels, "defaults"), **named}.items():
            if not name_.startswith(PREFECT) and name_ not in channels:
                raise _unknown(f"{where}: {at}", "channel", name_, channels)
        channels |= {c: prefect_channel(c) for c in (*raw.defaults.channels, *named)
                     if c.startswith(PREFECT)}  # fmt: skip
        return cls(
            kinds, channels, raw.defaults, raw.scores, raw.look_back_hours,
            resolve(raw.state), resolve(raw.host), resolve(raw.runbook),
        )  # fmt: skip

    def channels_of(self, kind: str) -> tuple[str, ...]:
        """Names of the channels for a kind; of those that the environment leaves off, none."""
        found = self.kinds.get(kind)
        wanted = (
            self.defaults.channels if found is None or found.channels is None else found.channels
        )
        return tuple(name for name in wanted if not self.channels[name].off)

    def repeat_after(self, kind: str) -> timedelta | None:
        found = self.kinds.get(kind)
        hours = None if found is None else found.repeat_hours
        hours = self.defaults.repeat_hours if hours is None else hours
        return timedelta(hours=hours) if hours else None

    def runbook_of(self, kind: str) -> str:
        return f"{self.runbook}#{kind}" if self.runbook else ""


@dataclass(frozen=True)
class _File:
    kinds: Mapping[str, Any]
    channels: Mapping[str, Any] = field(default_factory=dict)
    defaults: Defaults = Defaults()
    scores: Scores = Scores()
    look_back_hours: float = 24.0
    state: str = "mosaic-data/alerts.json"
    host: str = ""
    runbook: str = ""


def _kind(name: str, content: object, where: str) -> Kind:
    form = FORMS.get(name)
    if form is None:
        raise _unknown(where, "kind", name, FORMS)
    kind = build(form.settings, content, where)
    try:
        fields = [found[1] for found in string.Formatter().parse(kind.text) if found[1] is not None]
    except ValueError as error:
        raise ConfigurationError(f"{where}: text: {error}", "a template with {fields}") from error
    for name_ in fields:
        if name_ not in form.fields:
            raise _unknown(f"{where}: text", "field", name_, form.fields)
    return kind


def _unknown(
    where: str, what: str, name: str, known: Mapping[str, Any] | tuple[str, ...]
) -> Exception:
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return ConfigurationError(
        f"{where}: unknown {what} {name!r}",
        f"one of {', '.join(known)}",
        f"did you mean {near[0]!r}?" if near else "remove it",
    )
