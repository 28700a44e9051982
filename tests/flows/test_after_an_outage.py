"""A site that was down for a day, brought back by the flows that have a schedule of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.cycle import Cycle
from mosaic_core.publication import client
from mosaic_core.publication.removal import read_removed
from mosaic_core.storage import open_store
from tests.flows.conftest import database, on_servers, recent, world_of
from tests.flows.orchestra import Orchestra, until
from tests.pipeline.command import mosaic
from tests.pipeline.world import VARIANT, World

pytestmark = pytest.mark.slow
HERE = {"forecast_on": "here"}


class Site:
    """A world, and the flows that are run for it."""

    def __init__(self, orchestra: Orchestra, world: World) -> None:
        self.orchestra, self.world = orchestra, world

    def run(self, flow: str, **parameters: object) -> str:
        """Run a flow to its end; the identity of the run."""
        given = {"profile": self.world.profile, **parameters}
        identity = self.orchestra.trigger(f"{flow}/tiny", **given)
        self.orchestra.completed(identity)
        return identity

    def states(self) -> dict[Cycle, str]:
        """State of every cycle that the catalog knows, newest first."""
        with Catalog(self.world.catalog) as catalog:
            return {run.cycle: run.state for run in catalog.runs()}

    def table(self, identity: str, name: str) -> list[dict[str, object]]:
        """An artifact of a run whose key ends with a name."""
        found = self.orchestra.artifacts(identity)
        (data,) = [a["data"] for a in found if a["key"].endswith(name)]
        return list(json.loads(data))


@pytest.fixture(scope="module")
def day(
    orchestra: Orchestra, tmp_path_factory: pytest.TempPathFactory, postgres_server: str,
    s3_server: dict[str, str],
) -> Site:  # fmt: skip
    """Published a cycle a day ago, and nothing since; analyses go on into the next day."""
    folder, known = tmp_path_factory.mktemp("day"), recent(4)
    cycles = [*known, known[-1].shift(6), known[-1].shift(12)]
    settings = {
        "members": 2, "members_per_run": None, "products": ["statistics"],
        "available_after_hours": 1, "recovery": {"unheard_hours": 1},
        "retention": {"products": {"statistics": 0.01}},
    }  # fmt: skip
    before = world_of(folder / "before", cycles, settings=settings)
    world = on_servers(before, folder / "world", postgres_server)
    outcome = mosaic("run", str(known[0]), "-p", world.profile, environment=s3_server)
    assert outcome.code == 0, outcome.err
    return Site(orchestra, world)


@pytest.fixture(scope="module")
def made_up(day: Site) -> list[Cycle]:
    """The cycles of the day, newest first, after the reconciler has seen to them."""
    day.run("reconcile", **HERE)
    until(lambda: list(day.states().values()).count("published") == 2, "the newest to be published")
    day.run("reconcile", **HERE)
    return list(day.states())


@pytest.fixture(scope="module")
def backfilled(day: Site, made_up: list[Cycle]) -> tuple[Cycle, Cycle]:
    """(newest cycle, the one before it), both published."""
    newest, older = made_up[:2]
    given = {"first": str(older), "last": str(newest), **HERE}
    assert day.table(day.run("backfill", **given), "backfill") == [
        {"cycle": str(newest), "run now": False}, {"cycle": str(older), "run now": True},
    ]  # fmt: skip
    return newest, older


def test_the_newest_cycle_comes_first_and_what_it_supersedes_is_skipped(
    day: Site, made_up: list[Cycle], s3: None
) -> None:
    assert len(made_up) >= 4
    assert made_up == sorted(made_up, reverse=True)
    assert list(day.states().values())[:3] == ["published", "skipped", "skipped"]
    assert list(day.states().values())[-1] == "published"
    assert client.latest(day.world.store).cycle == made_up[0]
    asked = [r for r in day.orchestra.runs("run-cycle") if "reconciled" in r["tags"]]
    mine = [r for r in asked if r["parameters"]["profile"] == day.world.profile]
    assert [r["parameters"]["cycle"] for r in mine] == [str(made_up[0])]


def test_a_backfill_runs_what_is_missing_once_and_moves_latest_nowhere(
    day: Site, backfilled: tuple[Cycle, Cycle], s3: None
) -> None:
    newest, older = backfilled
    assert client.latest(day.world.store).cycle == newest
    assert client.manifest(day.world.store, older).revision == 1
    given = {"first": str(older), "last": str(newest), **HERE}
    again = day.table(day.run("backfill", **given), "backfill")
    assert [row["run now"] for row in again] == [False, False]


def test_verify_finds_nothing_outstanding_after_the_cycles_and_shows_the_scores(
    day: Site, backfilled: tuple[Cycle, Cycle]
) -> None:
    newest, older = backfilled
    shown = day.table(day.run("verify", cycle=str(newest)), "scores")
    assert "6 h" in {row["lead"] for row in shown}
    with Catalog(day.world.catalog) as catalog:
        assert (older, 6) in catalog.scored(VARIANT, "made-up", older)


def test_maintenance_says_first_what_it_would_remove_and_then_removes_that(
    day: Site, made_up: list[Cycle], backfilled: tuple[Cycle, Cycle], s3: None
) -> None:
    newest, older = backfilled
    store = open_store(day.world.store)
    prefix = client.manifest(day.world.store, older).prefix
    told = day.table(day.run("maintenance", dry_run=True), "retention")
    assert [row["cycle"] for row in told] == [older.id, made_up[-1].id]
    assert all(row["assets"] == ["statistics.zarr"] for row in told)
    assert read_removed(store, prefix) == {}
    done = day.table(day.run("maintenance"), "retention")
    assert done == told
    assert list(read_removed(store, prefix)) == ["statistics.zarr"]
    assert client.verify(day.world.store, older).ok
    assert client.verify(day.world.store, newest).ok


def test_watch_opens_what_is_wrong_once_and_shows_it(
    orchestra: Orchestra, tmp_path: Path, postgres_server: str
) -> None:
    """Of a site that has never run."""
    world = World(tmp_path / "world", catalog=database(postgres_server))
    with Catalog(world.catalog, check=False) as catalog:
        catalog.upgrade()
    never_ran = Site(orchestra, world)
    kinds = {"analysis-late", "analysis-missing", "not-published"}
    shown = [never_ran.table(never_ran.run("watch"), "alerts") for _ in range(2)]
    for table in shown:
        assert {str(row["alert"]).split()[0] for row in table} >= kinds
    with Catalog(world.catalog) as catalog:
        assert {alert.kind for alert in catalog.alerts()} >= kinds
        assert set(catalog.pulses()) == {"watch"}
