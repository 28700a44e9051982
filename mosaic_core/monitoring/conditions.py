"""One function a kind of alert: from what is known to what is wrong. Nothing is read here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from mosaic_core.catalog.models import Claim
from mosaic_core.cycle import Cycle
from mosaic_core.monitoring import kinds
from mosaic_core.monitoring.facts import CycleFacts, DiskFacts, Facts
from mosaic_core.monitoring.message import without_passwords
from mosaic_core.pipeline.claims import has_died

_BROKEN: Final = ("AnalysisRejected", "AnalysisUnreadable")
_ABSENT: Final = "AnalysisMissing"
_BEYOND_HOST = re.compile(r"(https?://[^/\s]+)/\S*")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong now: `subject` tells it from others of its kind."""

    kind: str
    subject: str
    severity: str
    text: str
    cycle: Cycle | None = None


Found = Iterator[tuple[str, Cycle | None, dict[str, Any]]]


def evaluate(facts: Facts) -> tuple[frozenset[str], tuple[Finding, ...]]:
    """(the kinds that could be looked for, what was found of them)."""
    looked, found = set(), []
    for name, kind in facts.site.alerting.kinds.items():
        if not _readable(name, facts):
            continue
        looked.add(name)
        scope = scope_of(name, facts)
        for detail, cycle, values in _CONDITIONS[name](facts, kind):
            text = without_passwords(kind.text.format(**values))
            subject = f"{scope} {detail}".strip()[:200]
            found.append(Finding(name, subject, kind.severity, text, cycle))
    return frozenset(looked), tuple(found)


def scope_of(kind: str, facts: Facts) -> str:
    """What the subjects of a kind begin with, as this watcher sees them."""
    return facts.site.variant if kinds.FORMS[kind].scope == "variant" else facts.site.host


def _readable(kind: str, facts: Facts) -> bool:
    need = kinds.FORMS[kind].need
    if kind == "latest-behind":
        return facts.catalog is not None and facts.store is not None
    if need == "catalog":
        return facts.catalog is not None
    return need == "host" or facts.store is not None


def _analysis_late(facts: Facts, kind: kinds.Deadline) -> Found:
    hours = facts.site.profile.cut_off_hours if kind.hours is None else kind.hours
    for cycle in facts.due(hours):
        refusal = cycle.refusal
        if cycle.settled or cycle.begun or (refusal is not None and refusal[0] != _ABSENT):
            continue
        if cycle.analysis is None or cycle.analysis.state != "rejected":
            yield _about(facts, cycle.cycle, source=facts.site.source, hours=f"{hours:g}")


def _checks_failed(facts: Facts, _kind: kinds.Kind) -> Found:
    for cycle in _cycles(facts):
        refusal = cycle.refusal
        if not cycle.settled and refusal is not None and refusal[0] in _BROKEN:
            yield _about(facts, cycle.cycle, source=facts.site.source, problem=refusal[1])


def _stage_failed(facts: Facts, kind: kinds.Attempts) -> Found:
    for cycle in _cycles(facts):
        stage, attempts, problem = _failure(cycle)
        if stage and attempts >= kind.attempts:
            yield _about(facts, cycle.cycle, stage=stage, attempts=attempts, problem=problem)


def _attempts_exhausted(facts: Facts, kind: kinds.Attempts) -> Found:
    for cycle in _cycles(facts):
        stage, _, problem = _failure(cycle)
        attempts = cycle.runs[0].attempts if cycle.runs else 0
        if stage and attempts >= kind.attempts:
            yield _about(facts, cycle.cycle, attempts=attempts, problem=problem)


def _failure(cycle: CycleFacts) -> tuple[str, int, str]:
    """(stage, attempts, problem) of a cycle that stands failed; an analysis that is absent or
    refused is no failure of a stage and has kinds of its own."""
    refusal = cycle.refusal
    if cycle.settled or (refusal is not None and refusal[0] in (_ABSENT, *_BROKEN)):
        return "", 0, ""
    if refusal is not None:
        tries = max(len(cycle.refusals), *(run.attempts for run in cycle.runs[:1]), 0)
        return "ingest", tries, refusal[1]
    run = cycle.runs[0] if cycle.runs else None
    if run is None or run.state != "failed":
        return "", 0, ""
    return cycle.failed_in or "a stage", run.attempts, run.error or "no reason was recorded"


def _not_published(facts: Facts, kind: kinds.Deadline) -> Found:
    hours = facts.site.profile.cut_off_hours if kind.hours is None else kind.hours
    for cycle in facts.due(hours):
        if not cycle.settled:
            yield _about(facts, cycle.cycle, hours=f"{hours:g}", state=cycle.state)


def _worker_dead(facts: Facts, kind: kinds.Minutes) -> Found:
    """While members are computed, those work who hold parts; who holds the cycle waits for them.

    To wait in a queue that another cycle keeps busy is no death; in one that nobody serves it is.
    """
    assert facts.catalog is not None
    watched = {cycle.cycle for cycle in facts.catalog.cycles}
    claims = [c for c in facts.catalog.claims if c.part >= 0]
    held = [c for c in claims if _held(c, facts)]
    busy = any(c.part for c in held)
    for run in facts.catalog.active:
        own = [c for c in held if c.cycle == run.cycle]
        waits = run.state == "forecasting" and not any(c.part for c in own)
        if run.cycle not in watched or (own and (busy or not waits)):
            continue
        signs = [
            c.since if own and not c.part else c.heartbeat for c in claims if c.cycle == run.cycle
        ]
        silent = (facts.now - max([run.updated, *signs])).total_seconds() / 60
        if silent >= kind.minutes:
            yield _about(facts, run.cycle, state=run.state, minutes=f"{silent:.0f}", host=run.host)


def _held(claim: Claim, facts: Facts) -> bool:
    return claim.expires > facts.now and not has_died(claim.owner)


def _claim_held_long(facts: Facts, kind: kinds.Hours) -> Found:
    assert facts.catalog is not None
    oldest: dict[Cycle, Claim] = {}
    for claim in facts.catalog.claims:
        if claim.expires > facts.now and claim.part >= 0:
            oldest.setdefault(claim.cycle, claim)
    for cycle, claim in oldest.items():
        hours = (facts.now - claim.since).total_seconds() / 3600
        if hours >= kind.hours:
            owner = claim.owner.partition("@")[0]
            yield _about(facts, cycle, hours=f"{hours:.1f}", owner=owner)


def _notice_undelivered(facts: Facts, kind: kinds.Hours) -> Found:
    assert facts.catalog is not None
    problems: dict[Cycle, list[str]] = {}
    for event in facts.catalog.notices:
        if event.cycle is not None and facts.now - event.time < timedelta(hours=kind.hours):
            problem = _BEYOND_HOST.sub(r"\1/...", str(event.detail.get("problem", "")))
            problems.setdefault(event.cycle, []).append(problem)
    for cycle, texts in problems.items():
        yield _about(facts, cycle, problem="; ".join(dict.fromkeys(texts)))


def _alert_undelivered(facts: Facts, kind: kinds.Minutes) -> Found:
    assert facts.catalog is not None
    late: dict[str, list[Any]] = {}
    for delivery, alert in facts.catalog.pending:
        old = facts.now - delivery.created >= timedelta(minutes=kind.minutes)
        if old and delivery.attempts and alert.kind != "alert-undelivered":
            late.setdefault(delivery.channel, []).append(delivery)
    for channel, deliveries in late.items():
        yield channel, None, {
            "channel": channel, "count": len(deliveries), "minutes": f"{kind.minutes:g}",
            "problem": deliveries[-1].problem,
        }  # fmt: skip


def _verification_drift(facts: Facts, kind: kinds.Drift) -> Found:
    assert facts.catalog is not None
    for metric, series in facts.catalog.series.items():
        worse = sorted((s for s in series if s.ratio >= kind.factor), key=lambda s: -s.ratio)
        if len(worse) >= kind.least_series:
            worst = worse[0]
            yield metric, None, {
                "variant": facts.site.variant, "metric": metric, "ratio": f"{worst.ratio:.2f}",
                "worst": str(worst.series), "count": len(worse), "of": len(series),
            }  # fmt: skip


def _latest_behind(facts: Facts, kind: kinds.Minutes) -> Found:
    assert facts.catalog is not None
    assert facts.store is not None
    run, latest = facts.catalog.newest_published, facts.store.latest
    if run is None or facts.store.damage or (latest is not None and latest.cycle >= run.cycle):
        return
    if facts.now - run.updated >= timedelta(minutes=kind.minutes):
        yield _about(facts, run.cycle, latest=str(latest.cycle) if latest else "nothing")


def _degraded(facts: Facts, _kind: kinds.Kind) -> Found:
    assert facts.store is not None
    manifest = facts.store.manifest
    if manifest is None:
        return
    problems = list(manifest.quality.flags) if manifest.quality.degraded else []
    problems += [f"no {missing.product} ({missing.reason})" for missing in manifest.missing]
    if problems:
        yield _about(facts, manifest.cycle, problem="; ".join(problems))


def _publication_damaged(facts: Facts, _kind: kinds.Kind) -> Found:
    assert facts.store is not None
    if facts.store.damage:
        yield "", None, {"variant": facts.site.variant, "problem": facts.store.damage}


def _store_unreachable(facts: Facts, _kind: kinds.Kind) -> Found:
    if facts.store is None:
        store = without_passwords(facts.site.profile.store)
        values = {"store": store, "host": facts.site.host, "problem": facts.store_problem}
        yield store, None, values


def _disk_nearly_full(facts: Facts, kind: kinds.Disk) -> Found:
    for disk in facts.disks:
        for what, free in _shares(disk):
            if free is not None and free * 100 < kind.free_percent:
                yield f"{disk.path} {what}", None, {
                    "path": disk.path, "host": facts.site.host, "what": what,
                    "free": f"{free * 100:.1f}",
                }  # fmt: skip


def _shares(disk: DiskFacts) -> Iterable[tuple[str, float | None]]:
    return (("bytes", disk.bytes_free), ("inodes", disk.inodes_free))


def _catalog_unreachable(facts: Facts, _kind: kinds.Kind) -> Found:
    if facts.catalog is None:
        yield "", None, {"host": facts.site.host, "problem": facts.catalog_problem}


def _cycles(facts: Facts) -> tuple[CycleFacts, ...]:
    assert facts.catalog is not None
    return facts.catalog.cycles


def _about(facts: Facts, cycle: Cycle, **values: Any) -> tuple[str, Cycle, dict[str, Any]]:
    return str(cycle), cycle, {"variant": facts.site.variant, "cycle": cycle, **values}


_CONDITIONS: Final[dict[str, Callable[[Facts, Any], Found]]] = {
    "analysis-late": _analysis_late,
    "analysis-missing": _analysis_late,
    "checks-failed": _checks_failed,
    "stage-failed": _stage_failed,
    "attempts-exhausted": _attempts_exhausted,
    "not-published": _not_published,
    "worker-dead": _worker_dead,
    "claim-held-long": _claim_held_long,
    "notice-undelivered": _notice_undelivered,
    "alert-undelivered": _alert_undelivered,
    "verification-drift": _verification_drift,
    "latest-behind": _latest_behind,
    "degraded": _degraded,
    "publication-damaged": _publication_damaged,
    "store-unreachable": _store_unreachable,
    "disk-nearly-full": _disk_nearly_full,
    "catalog-unreachable": _catalog_unreachable,
}
