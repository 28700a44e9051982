"""One look at a site: what is wrong is opened as alerts, told, repeated, and closed when over.

Run it every minute or five (`mosaic watch`, or the flow of that name). Each message is kept in
the catalog until it has arrived; one that fails is tried again at the next look.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, cast

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.catalog.models import Alert, AlertDelivery
from mosaic_core.cycle import Cycle
from mosaic_core.errors import CatalogError, ConfigurationError
from mosaic_core.monitoring import sending
from mosaic_core.monitoring.conditions import Finding, evaluate, scope_of
from mosaic_core.monitoring.facts import Facts, Watched, read_catalog, read_disks, try_store
from mosaic_core.monitoring.kinds import FORMS
from mosaic_core.monitoring.message import EventName, Message
from mosaic_core.monitoring.outage import Entry, Outage, Said, locked

LAPSE: Final = timedelta(hours=6)
_FAILURES_A_CHANNEL: Final = 2


@dataclass(frozen=True)
class Outcome:
    """What became of one message; `problem` is empty when it arrived."""

    channel: str
    message: Message
    problem: str


@dataclass
class Report:
    """What a look found and did; alerts are `kind subject`."""

    open: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    catalog_problem: str = ""

    @property
    def undelivered(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.problem]


@dataclass(frozen=True)
class Pending:
    """A message to send: `take` claims it (False: another has it), `settle` notes its fate."""

    channel: str
    attempts: int
    message: Message
    take: Callable[[], bool]
    settle: Callable[[str], None]
    drop: Callable[[str], None]


def watch(
    site: Watched,
    now: datetime | None = None,
    *,
    deliver: sending.Deliverer = sending.deliver,
    also: Iterable[Finding] = (),
    statvfs: Callable[[str], os.statvfs_result] = os.statvfs,
) -> Report:
    """Look once.

    Args:
        now: the time to go by, UTC; that of the host and of the catalog by default.
        deliver: sends a message through a channel and says what went wrong; a flow passes one
            that knows Prefect's blocks.
        also: findings of the caller, of kinds that are configured.

    Raises:
        ConfigurationError: the catalog's URL or the store's is none.
    """
    clock = (lambda: now) if now is not None else None
    moment = now or datetime.now(UTC)
    store, store_problem = try_store(site)
    facts = Facts(
        site, moment, store=store, disks=read_disks(site, statvfs), store_problem=store_problem
    )
    with locked(site.state):
        outage = Outage.load(site.state)
        try:
            with Catalog(site.profile.catalog, clock=clock) as catalog:
                return _with_catalog(catalog, facts, outage, list(also), deliver)
        except CatalogError as error:
            return _without_catalog(facts, outage, str(error), deliver)


def _with_catalog(
    catalog: Catalog, facts: Facts, outage: Outage, also: list[Finding], deliver: sending.Deliverer
) -> Report:
    site, alerting, report = facts.site, facts.site.alerting, Report()
    outage.hand_over(catalog)
    facts = replace(facts, catalog=read_catalog(site, catalog, facts.now))
    looked, found = evaluate(facts)
    findings = {(f.kind, f.subject): f for f in (*found, *also)}
    for finding in findings.values():
        channels = alerting.channels_of(finding.kind)
        _, new = catalog.open_alert(
            finding.kind, subject=finding.subject, severity=finding.severity, text=finding.text,
            cycle=finding.cycle, channels=channels,
        )  # fmt: skip
        if new:
            report.opened.append(f"{finding.kind} {finding.subject}")
    for alert in catalog.alerts():
        name = f"{alert.kind} {alert.subject}".strip()
        if (alert.kind, alert.subject) not in findings and _is_over(alert, looked, facts):
            if catalog.close_alert(alert.kind, alert.subject):
                report.closed.append(name)
            continue
        report.open.append(name)
        channels, after = alerting.channels_of(alert.kind), alerting.repeat_after(alert.kind)
        if channels:
            catalog.remind_of_alert(alert.id, channels, after)
    report.outcomes = send(_of_catalog(catalog, site), site, deliver)
    catalog.beat("watch")
    outage.remember([(alert.kind, alert.subject) for alert in catalog.alerts()])
    return report


def _is_over(alert: Alert, looked: frozenset[str], facts: Facts) -> bool:
    """Whether an open alert that was not found again is this watcher's to close."""
    if alert.kind not in looked:
        return False
    scope = scope_of(alert.kind, facts)
    if alert.subject == scope or alert.subject.startswith(f"{scope} "):
        return True
    # Of a host that looks no more; another variant has a watcher of its own.
    return FORMS[alert.kind].scope == "host" and facts.now - alert.last_seen > LAPSE


def _without_catalog(
    facts: Facts, outage: Outage, problem: str, deliver: sending.Deliverer
) -> Report:
    site = facts.site
    facts = replace(facts, catalog=None, catalog_problem=problem)
    looked, findings = evaluate(facts)
    before = {entry.id for entry in outage.entries}
    outage.update(findings, looked, site.alerting, facts.now)
    outcomes = send(_of_outage(outage, facts), site, deliver)
    outage.save()
    entries = outage.entries
    return Report(
        open=[f"{e.kind} {e.subject}" for e in entries if not e.closed],
        opened=[f"{e.kind} {e.subject}" for e in entries if e.id not in before],
        closed=[f"{e.kind} {e.subject}" for e in entries if e.closed == facts.now.isoformat()],
        outcomes=outcomes,
        catalog_problem=problem,
    )


def send(pending: Iterable[Pending], site: Watched, deliver: sending.Deliverer) -> list[Outcome]:
    """Send what is pending: about one kind and subject in order, and no further after a failure.

    A channel that fails twice is left alone until the next look, so that one that does not
    answer holds up nothing; what has been tried least often goes first.
    """
    groups: dict[tuple[str, str], list[Pending]] = {}
    for item in pending:
        groups.setdefault((item.channel, item.message.key), []).append(item)
    failures: dict[str, int] = {}
    outcomes = []
    for (name, _), items in sorted(groups.items(), key=lambda group: group[1][0].attempts):
        channel = site.alerting.channels.get(name)
        for item in items:
            if channel is None:
                item.drop(f"there is no channel {name!r} any more")
                continue
            if failures.get(name, 0) >= _FAILURES_A_CHANNEL or not item.take():
                break
            problem = deliver(channel, item.message)
            item.settle(problem)
            outcomes.append(Outcome(name, item.message, problem))
            if problem:
                failures[name] = failures.get(name, 0) + 1
                break
    return outcomes


def _of_catalog(catalog: Catalog, site: Watched) -> list[Pending]:
    def one(delivery: AlertDelivery, alert: Alert) -> Pending:
        return Pending(
            delivery.channel,
            delivery.attempts,
            _message(delivery, alert, site),
            lambda: catalog.lease_delivery(delivery.id),
            lambda problem: catalog.settle_delivery(delivery.id, problem),
            lambda problem: catalog.settle_delivery(delivery.id, problem, drop=True),
        )

    return [one(delivery, alert) for delivery, alert in catalog.pending_deliveries()]


def _message(delivery: AlertDelivery, alert: Alert, site: Watched) -> Message:
    closed = alert.closed or delivery.created
    return Message(
        event=cast(EventName, delivery.event),
        id=f"alert-{alert.id}-{delivery.event}-{delivery.number}",
        kind=alert.kind,
        severity=alert.severity,
        subject=alert.subject,
        text=alert.text,
        opened=alert.opened,
        when=closed if delivery.event == "closed" else delivery.created,
        number=alert.id,
        cycle=alert.cycle,
        host=site.host,
        runbook=site.alerting.runbook_of(alert.kind),
    )


def _of_outage(outage: Outage, facts: Facts) -> list[Pending]:
    def one(entry: Entry, said: Said) -> Pending:
        def take() -> bool:
            said.attempts += 1
            return True

        def settle(problem: str) -> None:
            said.problem = problem
            said.sent = "" if problem else facts.now.isoformat()
            outage.save()

        message = Message(
            event=cast(EventName, said.event),
            id=f"{entry.id}-{said.event}-{said.number}",
            kind=entry.kind,
            severity=entry.severity,
            subject=entry.subject,
            text=entry.text,
            opened=datetime.fromisoformat(entry.opened),
            when=facts.now,
            cycle=Cycle.parse(entry.cycle) if entry.cycle else None,
            host=facts.site.host,
            runbook=facts.site.alerting.runbook_of(entry.kind),
        )
        return Pending(
            said.channel, said.attempts, message, take, settle,
            lambda problem: entry.said.remove(said),
        )  # fmt: skip

    return [one(e, said) for e in outage.entries for said in e.said if not said.sent]


def try_channels(
    site: Watched, names: Sequence[str] = (), deliver: sending.Deliverer = sending.deliver
) -> list[Outcome]:
    """Send a test message to the channels of these names, or to all that there are.

    Raises:
        ConfigurationError: there is no such channel.
    """
    now, known = datetime.now(UTC), site.alerting.channels
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigurationError(
                f"there is no channel {name!r}",
                f"one of {', '.join(known)}",
                f"did you mean {near[0]!r}?" if near else "see config/alerts.yaml",
            )
    message = Message(
        event="test",
        id=f"test-{now.timestamp():.0f}",
        kind="test",
        severity="info",
        subject=site.variant,
        text=f"A test from {site.host}: messages about alerts of {site.variant} arrive here.",
        opened=now,
        when=now,
        host=site.host,
    )
    chosen = [known[name] for name in names or known]
    return [Outcome(channel.name, message, deliver(channel, message)) for channel in chosen]
