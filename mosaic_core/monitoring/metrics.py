"""What is measured, as Prometheus metrics: read from catalog and store at each scrape.

Percentiles and ratios are over the runs of the last 30 days; `_total` metrics count since the
beginning and only ever grow.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from prometheus_client import CollectorRegistry, generate_latest, push_to_gateway, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import basic_auth_handler, default_handler
from prometheus_client.registry import Collector

from mosaic_core import __version__
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.catalog.models import ForecastRun
from mosaic_core.errors import CatalogError, ConfigurationError, MosaicError
from mosaic_core.monitoring.facts import DONE, StoreFacts, Watched, read_disks, try_store
from mosaic_core.monitoring.message import without_passwords

WINDOW: Final = timedelta(days=30)
PERCENTILES: Final = (50, 95, 99)


class SiteCollector(Collector):
    """Reads a site whenever it is asked; a catalog or store that is away reads as 0, not as an
    error, so that the rest is still seen."""

    def __init__(self, site: Watched) -> None:
        self._site = site
        self._reading = threading.Lock()

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing is read before the first scrape

    def collect(self) -> Iterator[Metric]:
        with self._reading:
            yield _gauge("mosaic_build_info", "The program.", [((__version__,), 1)], ["version"])
            store, _ = try_store(self._site)
            yield _gauge("mosaic_store_up", "Whether the store can be read.", [((), store)])
            disks = read_disks(self._site)
            yield _gauge(
                "mosaic_disk_free_ratio", "Free share of a file system in use, 0..1.",
                [((d.path,), d.bytes_free) for d in disks if d.bytes_free is not None], ["path"],
            )  # fmt: skip
            try:
                with Catalog(self._site.profile.catalog) as catalog:
                    found = list(_from_catalog(self._site, catalog, store))
            except CatalogError:
                found = None
            yield _gauge("mosaic_catalog_up", "Whether the catalog can be read.", [((), found)])
            yield from found or ()


def registry_of(site: Watched) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SiteCollector(site))
    return registry


def text(site: Watched) -> str:
    """All metrics in Prometheus's text format."""
    return generate_latest(registry_of(site)).decode()


def serve(site: Watched, host: str, port: int) -> None:
    """Serve them at `/metrics` until the process is ended.

    Raises:
        ConfigurationError: nobody can listen there.
    """
    try:
        server, thread = start_http_server(port, host, registry_of(site))
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror or error}", "an address that is free"
        ) from error
    try:
        thread.join()
    finally:
        server.shutdown()
        server.server_close()


def push(site: Watched, url: str) -> None:
    """Push them once to a Pushgateway; a user and password in the URL are sent as basic auth.

    Raises:
        MosaicError: the gateway does not take them.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f"{without_passwords(url)} is no Pushgateway", "http(s)://host")

    def handler(
        url: str, method: str, timeout: float | None, headers: Any, data: bytes
    ) -> Callable[[], None]:
        request = (url, method, timeout, headers, data)
        if parts.username is None:
            return default_handler(*request)
        return basic_auth_handler(*request, unquote(parts.username), unquote(parts.password or ""))

    gateway = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    key = {"variant": site.variant}
    try:
        push_to_gateway(gateway, "mosaic", registry_of(site), key, timeout=30, handler=handler)
    except OSError as error:
        raise MosaicError(
            f"{gateway} does not take the metrics: {error}", "a Pushgateway", "check the URL"
        ) from error


def _from_catalog(site: Watched, catalog: Catalog, store: StoreFacts | None) -> Iterator[Metric]:
    now = datetime.now(UTC)
    runs = catalog.runs(limit=2000)
    yield from _of_runs(site, runs, now)
    yield from _of_publications(catalog, runs, store)
    yield from _of_alerts(site, catalog, now)
    yield from _of_scores(site, catalog)
    attempts = CounterMetricFamily("mosaic_run_attempts", "Attempts at runs.", labels=["variant"])
    published = CounterMetricFamily("mosaic_runs_published", "Runs published.", labels=["variant"])
    for variant, (tries, done) in sorted(catalog.run_totals().items()):
        attempts.add_metric((variant,), tries)
        published.add_metric((variant,), done)
    yield from (attempts, published)
    analyses = catalog.analyses(source=site.source, limit=1)
    yield _gauge(
        "mosaic_newest_analysis_timestamp_seconds", "Valid time of the newest analysis.",
        [((a.source,), a.cycle.init_time.timestamp()) for a in analyses], ["source"],
    )  # fmt: skip


def _of_runs(site: Watched, runs: Sequence[ForecastRun], now: datetime) -> Iterator[Metric]:
    recent = [run for run in runs if now - run.updated <= WINDOW]
    stages: dict[tuple[str, str], list[float]] = {}
    delays: dict[str, list[float]] = {}
    outcomes: dict[str, list[bool]] = {}
    for run in recent:
        for stage, seconds in run.timings.items():
            stages.setdefault((run.variant, stage), []).append(float(seconds))
        delay = run.published and (run.published - run.cycle.init_time)
        if delay and delay <= timedelta(days=1):  # not of a backfill
            delays.setdefault(run.variant, []).append(delay.total_seconds())
        if run.state in (*DONE, "failed"):
            outcomes.setdefault(run.variant, []).append(run.state in DONE)
    yield _gauge(
        "mosaic_stage_seconds", "How long a stage took.",
        [((*key, str(p)), _percentile(v, p)) for key, v in stages.items() for p in PERCENTILES],
        ["variant", "stage", "percentile"],
    )  # fmt: skip
    yield _gauge(
        "mosaic_publication_delay_seconds", "From the initial time to the publication.",
        [((key, str(p)), _percentile(v, p)) for key, v in delays.items() for p in PERCENTILES],
        ["variant", "percentile"],
    )  # fmt: skip
    yield _gauge(
        "mosaic_success_ratio", "Share of the finished runs that published, 0..1.",
        [((variant,), sum(good) / len(good)) for variant, good in outcomes.items()], ["variant"],
    )  # fmt: skip
    states = {(run.variant, run.state): 0 for run in recent}
    for run in recent:
        states[run.variant, run.state] += 1
    yield _gauge(
        "mosaic_runs", "Runs of the last 30 days by their state now.",
        list(states.items()), ["variant", "state"],
    )  # fmt: skip
    newest = next((run for run in runs if run.variant == site.variant), None)
    yield _gauge(
        "mosaic_newest_run_attempts", "Attempts at the newest run.",
        [((newest.variant,), newest.attempts)] if newest else [], ["variant"],
    )  # fmt: skip


def _of_publications(
    catalog: Catalog, runs: Sequence[ForecastRun], store: StoreFacts | None
) -> Iterator[Metric]:
    newest: dict[str, ForecastRun] = {}
    for run in runs:
        if run.published and run.published > _published(newest.get(run.variant)):
            newest[run.variant] = run
    cycles = {run.variant: run.cycle for run in reversed(runs) if run.state == "published"}
    yield _gauge(
        "mosaic_last_success_timestamp_seconds", "When a forecast was last published.",
        [((variant,), _published(run).timestamp()) for variant, run in newest.items()],
        ["variant"],
    )  # fmt: skip
    yield _gauge(
        "mosaic_newest_published_cycle_timestamp_seconds", "Initial time of the newest forecast.",
        [((variant,), cycle.init_time.timestamp()) for variant, cycle in cycles.items()],
        ["variant"],
    )  # fmt: skip
    counter = CounterMetricFamily(
        "mosaic_published_bytes", "Bytes published.", labels=["variant", "product"]
    )
    for key, size in sorted(catalog.published_bytes().items()):
        counter.add_metric(key, size)
    yield counter
    yield from _throughput(runs, store)


def _throughput(runs: Sequence[ForecastRun], store: StoreFacts | None) -> Iterator[Metric]:
    """Of the newest forecast, unless it was computed in several attempts."""
    manifest = store.manifest if store else None
    rates: list[tuple[tuple[str, ...], float]] = []
    sizes: list[tuple[tuple[str, ...], float]] = []
    if manifest is not None:
        ensemble = manifest.ensemble
        label = (manifest.variant,)
        sizes = [((*label, "members"), ensemble.members), ((*label, "steps"), ensemble.steps)]
        for run in runs:
            same = (run.variant, run.cycle, run.revision) == manifest.id
            seconds = [v for k, v in run.timings.items() if k.startswith("forecast")]
            if same and run.attempts == 1 and sum(seconds) > 0:
                rates = [(label, ensemble.members * ensemble.steps / sum(seconds))]
    yield _gauge(
        "mosaic_ensemble_size", "Members and steps of the newest forecast.",
        sizes, ["variant", "what"],
    )  # fmt: skip
    yield _gauge(
        "mosaic_member_steps_per_second", "Steps of one member computed in a second of a worker.",
        rates, ["variant"],
    )  # fmt: skip


def _of_alerts(site: Watched, catalog: Catalog, now: datetime) -> Iterator[Metric]:
    count: dict[tuple[str, ...], float] = {
        (kind, settings.severity): 0 for kind, settings in site.alerting.kinds.items()
    }
    for alert in catalog.alerts():
        key = (alert.kind, alert.severity)
        count[key] = count.get(key, 0) + 1
    yield _gauge("mosaic_alerts_open", "Open alerts.", list(count.items()), ["kind", "severity"])
    pending: dict[tuple[str, ...], float] = {(name,): 0 for name in site.alerting.channels}
    for delivery, _ in catalog.pending_deliveries():
        pending[delivery.channel,] = pending.get((delivery.channel,), 0) + 1
    yield _gauge(
        "mosaic_alert_messages_pending", "Messages about alerts that have not arrived.",
        list(pending.items()), ["channel"],
    )  # fmt: skip
    ages: dict[tuple[str, ...], float] = {}
    for claim in catalog.claims():
        if claim.part >= 0:
            age = (now - claim.since).total_seconds()
            ages[claim.variant,] = max(age, ages.get((claim.variant,), 0.0))
    yield _gauge(
        "mosaic_claim_age_seconds", "Age of the oldest claim that is held.",
        list(ages.items()), ["variant"],
    )  # fmt: skip
    pulses = catalog.pulses()
    yield _gauge(
        "mosaic_watch_timestamp_seconds", "When somebody last looked for what is wrong.",
        [((), pulses["watch"].timestamp())] if "watch" in pulses else [],
    )  # fmt: skip


def _of_scores(site: Watched, catalog: Catalog) -> Iterator[Metric]:
    wanted = site.alerting.scores
    found = catalog.newest_scores(
        metrics=wanted.metrics, variables=wanted.variables,
        lead_hours=wanted.lead_hours, regions=wanted.regions,
    )  # fmt: skip
    yield _gauge(
        "mosaic_score", "Score of the newest verified cycle, in the unit of the variable.",
        [
            ((model, s.metric, s.variable, str(s.level), s.region, str(s.lead_hours)), value)
            for (model, s), value in sorted(found.items())
        ],
        ["variant", "metric", "variable", "level", "region", "lead_hours"],
    )  # fmt: skip


def _published(run: ForecastRun | None) -> datetime:
    found = run.published if run is not None else None
    return found or datetime.min.replace(tzinfo=UTC)


def _percentile(values: Sequence[float], p: float) -> float:
    """By linear interpolation between the sorted values."""
    ordered = sorted(values)
    place = p / 100 * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _gauge(
    name: str,
    meaning: str,
    samples: Iterable[tuple[tuple[str, ...], Any]],
    labels: Sequence[str] = (),
) -> GaugeMetricFamily:
    """A gauge; what is no number counts as 1, None as 0."""
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for values, sample in samples:
        number = sample if isinstance(sample, int | float) else float(sample is not None)
        family.add_metric(values, float(number))
    return family
