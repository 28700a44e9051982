"""What is old goes, and nothing that somebody still needs, whatever the rules say."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mosaic_core.analysis.store import COMMIT, analysis_key
from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.errors import PublicationError
from mosaic_core.pipeline.agreement import differences
from mosaic_core.pipeline.retention import Removal, Retention
from mosaic_core.pipeline.run import run_cycle
from mosaic_core.pipeline.site import Site
from mosaic_core.profile import Retention as Rules
from mosaic_core.publication import client, layout
from mosaic_core.publication.manifest import (
    AssetDraft,
    Ensemble,
    Input,
    ManifestDraft,
    Model,
    Timeliness,
)
from mosaic_core.publication.publish import publish
from mosaic_core.storage import open_store
from tests.pipeline.command import mosaic
from tests.pipeline.world import FIRST, STEPS, VARIANT, World, plain
from tests.recovery.sites import site_of

NOW = datetime(2026, 11, 20, 7, tzinfo=UTC)
TODAY = Cycle(datetime(2026, 11, 20, tzinfo=UTC))
LEADS = tuple(6 * (i + 1) for i in range(STEPS))
VERIFIED_FOR = 20
"""Days after which a forecast is no longer verified, in config/verification.yaml."""

ASSETS = {"ensemble.bin": "ensemble", "mean.bin": "statistics", "map.png": "maps"}
OTHERS = "other-host:1@00000000"


@dataclass(frozen=True)
class Made:
    """One forecast of a store in a test."""

    age: int
    state: str
    scored: bool
    claimed: bool

    @property
    def cycle(self) -> Cycle:
        return TODAY.shift(-24 * self.age)

    @property
    def prefix(self) -> str:
        return layout.forecast_prefix(VARIANT, self.cycle)

    @property
    def needs_ensemble(self) -> bool:
        return self.state == "published" and not self.scored and self.age < VERIFIED_FOR


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return site_of(World(tmp_path_factory.mktemp("template") / "world"))


@contextmanager
def site_like(template: Site, rules: Rules) -> Iterator[Site]:
    """A site of its own, with an empty store and catalog whose clock stands at NOW."""
    with tempfile.TemporaryDirectory() as folder:
        empty = template.profile.catalog.removeprefix("sqlite:///")
        shutil.copy(empty, f"{folder}/catalog.sqlite")
        profile = dataclasses.replace(template.profile, retention=rules)
        with Catalog(f"sqlite:///{folder}/catalog.sqlite", clock=lambda: NOW) as catalog:
            store = open_store(f"{folder}/store")
            yield dataclasses.replace(template, profile=profile, store=store, catalog=catalog)


def make(site: Site, made: Made) -> None:
    """A folder, a row and perhaps a manifest, scores and a claim."""
    for key in ASSETS:
        site.store.put(f"{made.prefix}/{key}", f"{key} of {made.cycle}".encode())
    run = site.catalog.start_run(made.cycle, VARIANT, revision=1)
    if made.state == "published":
        for state in ("forecasting", "products", "publishing"):
            site.catalog.set_state(run, state)
        done = publish(site.store, draft(made.cycle), now=made.cycle.init_time)
        published = done.manifest.timeliness.published
        site.catalog.set_state(run, "published", digest=done.manifest.digest, published=published)
    else:
        site.catalog.set_state(run, made.state)
    if made.scored:
        score = {
            "cycle": made.cycle, "model": VARIANT, "variable": "temperature", "level": 500,
            "region": "globe", "metric": "rmse", "sum": 1.0, "weight": 1.0, "value": 1.0,
            "truth_source": site.source.name,
        }  # fmt: skip
        site.catalog.record_scores([{**score, "lead_hours": lead} for lead in LEADS])
    if made.claimed:
        site.catalog.claim(made.cycle, VARIANT, OTHERS, ttl=600)


def draft(cycle: Cycle) -> ManifestDraft:
    return ManifestDraft(
        cycle=cycle,
        variant=VARIANT,
        model=Model("mosaic", "0" * 64, "1.0"),
        ensemble=Ensemble(members=2, steps=STEPS, step_hours=6, seed=1),
        inputs=(Input("made-up", cycle.init_time, "abc"),),
        assets=tuple(AssetDraft(k, p, "application/octet-stream") for k, p in ASSETS.items()),
        timeliness=Timeliness(cycle.init_time),
    )


def objects(site: Site) -> set[str]:
    return {info.key for info in site.store.list()}


forecasts = st.lists(
    st.builds(
        Made,
        age=st.integers(0, 40),
        state=st.sampled_from(["published", "published", "published", "forecasting", "failed"]),
        scored=st.booleans(),
        claimed=st.sampled_from([False, False, False, True]),
    ),
    min_size=1, max_size=6, unique_by=lambda made: made.age,
)  # fmt: skip
days = st.none() | st.integers(0, 40).map(float)


@settings(
    max_examples=10, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(made=forecasts, ensemble=days, other=days, analyses=days)
def test_no_rule_takes_what_is_needed_and_all_else_that_is_too_old_goes(
    template: Site,
    made: list[Made],
    ensemble: float | None,
    other: float | None,
    analyses: float | None,
) -> None:
    limits = {"ensemble": ensemble, "other": other}
    rules = Rules({k: v for k, v in limits.items() if v is not None}, analyses)
    with site_like(template, rules) as site:
        for one in made:
            make(site, one)
        valid = [TODAY.shift(-24 * age).init_time for age in range(0, 41, 4)]
        for time in valid:
            site.store.put(f"{analysis_key(site.source.name, time)}/{COMMIT}", b"{}")
        before = objects(site)
        planned = {removal.key for removal in Retention(site, NOW).plan()}
        assert objects(site) == before

        done = list(Retention(site, NOW).apply())

        assert {removal.key for removal in done} == planned
        left = objects(site)
        newest = max((m.cycle for m in made if m.state == "published"), default=None)
        for one in made:
            expected = {key for key in ASSETS if stays(one, key, rules, newest)}
            assert {k for k in ASSETS if f"{one.prefix}/{k}" in left} == expected
            manifest = f"{one.prefix}/{layout.MANIFEST}" in left
            assert manifest == (one.state == "published" and bool(expected))
            if manifest:
                assert client.verify(site.store.root, one.cycle).ok
        for time in valid:
            key = f"{analysis_key(site.source.name, time)}/{COMMIT}"
            if key not in left:
                age = (NOW - time) / timedelta(days=1)
                assert analyses is not None
                assert age > max(analyses, 10)
                assert not any(is_truth(time, one) for one in made)
                assert not any(m.state != "published" and m.cycle.init_time == time for m in made)
        assert differences(site, since=TODAY.shift(-24 * 60)) == ()
        assert list(Retention(site, NOW).apply()) == []


def stays(one: Made, key: str, rules: Rules, newest: Cycle | None) -> bool:
    """The rule in the words of a reader of the documentation."""
    if one.state != "published" or one.claimed or one.cycle == newest:
        return True
    limit = rules.of(ASSETS[key])
    age = (NOW - one.cycle.init_time) / timedelta(days=1)
    return limit is None or age <= limit or (key == "ensemble.bin" and one.needs_ensemble)


def is_truth(time: datetime, one: Made) -> bool:
    return one.needs_ensemble and time in {
        one.cycle.init_time + timedelta(hours=hours) for hours in LEADS
    }


def test_an_old_analysis_goes_unless_a_run_or_a_verification_needs_it(template: Site) -> None:
    with site_like(template, Rules(analyses=0.0)) as site:
        make(site, Made(15, "published", scored=False, claimed=False))
        make(site, Made(30, "failed", scored=False, claimed=False))
        for age in (1, 14, 30, 35):
            time = TODAY.shift(-24 * age).init_time
            site.store.put(f"{analysis_key(site.source.name, time)}/{COMMIT}", b"{}")
        (gone,) = Retention(site, NOW).apply()
        assert (gone.kind, gone.cycle) == ("analysis", TODAY.shift(-24 * 35))


def test_a_removal_that_was_cut_short_is_finished(template: Site) -> None:
    with site_like(template, Rules({"other": 5.0})) as site:
        old = Made(30, "published", scored=True, claimed=False)
        make(site, old)
        make(site, Made(0, "published", scored=False, claimed=False))
        delete_all = type(site.store).delete_all
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(site.store), "delete_all", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                list(Retention(site, NOW).apply())
        assert type(site.store).delete_all is delete_all
        assert f"{old.prefix}/ensemble.bin" in objects(site)
        (rest,) = Retention(site, NOW).apply()
        assert (rest.kind, rest.key) == ("remains", old.prefix)
        assert not [key for key in objects(site) if key.startswith(old.prefix)]


def _interrupted(*_: object) -> int:
    raise KeyboardInterrupt


def test_a_folder_of_no_run_and_a_published_one_without_its_manifest_are_left_alone(
    template: Site,
) -> None:
    with site_like(template, Rules({"other": 0.0})) as site:
        lost = Made(9, "published", scored=True, claimed=False)
        make(site, lost)
        make(site, Made(0, "published", scored=False, claimed=False))
        site.store.delete(f"{lost.prefix}/{layout.MANIFEST}")
        stranger = f"{layout.forecast_prefix(VARIANT, TODAY.shift(-48))}/thing"
        site.store.put(stranger, b"?")
        assert list(Retention(site, NOW).apply()) == []
        assert {d.kind for d in differences(site, since=lost.cycle)} == {"lost", "unknown"}


def test_a_forecast_that_is_taken_up_between_plan_and_removal_is_kept(template: Site) -> None:
    with site_like(template, Rules({"other": 5.0})) as site:
        for age in (0, 30):
            make(site, Made(age, "published", scored=True, claimed=False))
        rules = Retention(site, NOW)
        (planned,) = rules.plan()
        assert isinstance(planned, Removal)
        site.catalog.claim(planned.cycle, VARIANT, OTHERS, ttl=600)
        assert list(rules.apply()) == []
        assert f"{planned.key}/{layout.MANIFEST}" in objects(site)


def test_mosaic_retention_says_what_would_go_and_removes_it_when_told(second: World) -> None:
    older = FIRST
    second.write(retention={"products": {"ensemble": 1}}, recovery={"max_age_hours": 1e6})
    run_cycle(site_of(second), FIRST.shift(6))
    words = ("retention", "-p", second.profile, "--json")
    told = plain(mosaic(*words).out)
    assert [(r["kind"], r["cycle"]) for r in told["removals"]] == [("assets", older.id)]
    assert client.open_forecast(second.store, older, "ensemble")["temperature"].notnull().all()
    outcome = mosaic(*words, "--apply")
    assert outcome.code == 0, outcome.err
    assert plain(outcome.out)["removals"] == told["removals"]
    assert client.verify(second.store, older).ok
    with pytest.raises(PublicationError, match="was removed on"):
        client.open_forecast(second.store, older, "ensemble")
    assert client.open_forecast(second.store, older)["temperature"].notnull().all()
    newest = FIRST.shift(6)
    assert client.open_forecast(second.store, newest, "ensemble")["temperature"].notnull().all()
    assert plain(mosaic(*words).out)["removals"] == []
