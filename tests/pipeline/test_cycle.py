"""A whole cycle through the command, on every kind of store and catalog."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mosaic_core.catalog.catalog import Catalog
from mosaic_core.errors import IntegrityError
from mosaic_core.publication import client
from mosaic_core.storage import open_store
from tests.pipeline.command import Fault, mosaic
from tests.pipeline.world import FIRST, MEMBERS, SECOND, STEPS, VARIANT, World, plain
from tests.servers import database_url, object_store_url, postgres_server, s3_server

__all__ = ["database_url", "object_store_url", "postgres_server", "s3_server"]
NO_STEP = Fault("mosaic_core.model.network:Mosaic.forward")


def run(world: World, cycle: object = FIRST, *words: str, **more: object) -> dict[str, object]:
    outcome = mosaic("run", str(cycle), "-p", world.profile, "--json", *words, **more)  # type: ignore[arg-type]
    assert outcome.code == 0, outcome.err
    found: dict[str, object] = plain(outcome.out)
    return found


def test_a_cycle_is_published_once_revised_on_purpose_and_never_overtaken_by_an_older_one(
    tmp_path: Path, object_store_url: str, database_url: str
) -> None:
    products = ["statistics", "spectra"]
    world = World(tmp_path / "world", object_store_url, database_url, {"products": products})
    store = world.store
    upgraded = mosaic("catalog", "upgrade", "-p", world.profile)
    assert upgraded.code == 0, upgraded.err

    report = run(world, SECOND)
    assert (report["outcome"], report["revision"], report["missing"]) == ("published", 1, {})
    assert report["products"] == ["ensemble", "spectra", "statistics"]
    latest = client.latest(store)
    assert (latest.cycle, latest.variant, latest.revision) == (SECOND, VARIANT, 1)
    assert latest.digest == report["digest"]
    ensemble = client.open_forecast(store, product="ensemble")
    assert (ensemble.sizes["number"], ensemble.sizes["lead_time"]) == (MEMBERS, STEPS)
    assert np.isfinite(ensemble["temperature"].values).all()
    statistics = client.open_forecast(store, product="statistics")
    np.testing.assert_allclose(
        statistics["2m_temperature"], ensemble["2m_temperature"].mean("number"), rtol=1e-5
    )
    assert client.open_forecast(store, product="spectra").sizes["lead_time"] >= STEPS
    assert client.verify(store).ok

    again = run(world, SECOND, faults=[NO_STEP])
    assert (again["outcome"], again["digest"]) == ("unchanged", report["digest"])

    revised = run(world, SECOND, "--set", "seed=1")
    assert (revised["outcome"], revised["revision"]) == ("published", 2)
    assert client.latest(store).revision == 2
    assert client.verify(store).ok

    older = run(world, FIRST)
    assert older["outcome"] == "published"
    assert (client.latest(store).cycle, client.latest(store).revision) == (SECOND, 2)
    assert [(m.cycle, m.revision) for m in client.list_forecasts(store)] == [
        (FIRST, 1), (SECOND, 1), (SECOND, 2),
    ]  # fmt: skip

    with Catalog(world.catalog) as catalog:
        rows = catalog.runs()
        assert [(r.cycle, r.revision, r.state) for r in rows] == [
            (SECOND, 2, "published"), (SECOND, 1, "published"), (FIRST, 1, "published"),
        ]  # fmt: skip
        assert rows[1].digest == report["digest"]
        assert set(rows[1].timings) == {"ingest", "forecast", "products", "publish"}
        assert {p.state for p in catalog.products(rows[0])} == {"published"}
        assert {a.state for a in catalog.analyses()} == {"accepted"}
        assert len(catalog.analyses()) == 3
        assert catalog.claims() == ()

    objects = open_store(store)
    victim = next(
        info.key for info in objects.list(client.manifest(store).prefix)
        if "ensemble.zarr/temperature/c/" in info.key
    )  # fmt: skip
    content = bytearray(objects.get(victim))
    content[len(content) // 2] ^= 1
    objects.put(victim, bytes(content))
    with pytest.raises(IntegrityError, match="temperature/c/"):
        client.verify(store)
    outcome = mosaic("products", "verify", "-p", world.profile)
    assert outcome.code == 10
    assert victim.partition("Z.r2/")[2] in outcome.out


@pytest.mark.parametrize(
    "setting", ["members=3", "steps=2", "precision=bfloat16", "keepbits={temperature: 10}"]
)
def test_another_forecast_of_a_published_cycle_is_a_revision(setting: str, second: World) -> None:
    report = run(second, FIRST, "--set", setting)
    assert (report["outcome"], report["revision"]) == ("published", 2)
    assert run(second, FIRST, "--set", setting, faults=[NO_STEP])["outcome"] == "unchanged"


def test_a_product_that_cannot_be_made_is_named_and_the_cycle_can_be_run_again_and_again(
    world: World,
) -> None:
    world.write(products=["statistics", "stamps"])
    reports = [run(world) for _ in range(3)]
    assert [r["outcome"] for r in reports] == ["published", "unchanged", "unchanged"]
    assert "mean_sea_level_pressure" in reports[0]["missing"]["stamps"]  # type: ignore[index]
    assert client.verify(world.store).ok
    with Catalog(world.catalog) as catalog:
        assert [(r.revision, r.state) for r in catalog.runs()] == [
            (2, "unchanged"),
            (1, "published"),
        ]


def test_products_left_by_an_attempt_with_another_profile_are_no_obstacle(world: World) -> None:
    world.write(products=["statistics", "spectra"])
    kill = Fault("mosaic_core.pipeline.stages:publish_forecast")
    assert mosaic("run", str(FIRST), "-p", world.profile, faults=[kill]).code < 0
    report = run(world, FIRST, "--set", "products=[statistics]", faults=[NO_STEP])
    assert report["products"] == ["ensemble", "statistics"]
    assert client.verify(world.store).ok


def test_the_remains_of_a_run_with_other_settings_are_not_mixed_in(
    world: World, past: World
) -> None:
    kill = Fault("mosaic_core.ensemble.written:seal")
    words = ("run", str(FIRST), "-p", world.profile, "--set", "seed=7")
    assert mosaic(*words, faults=[kill]).code < 0
    assert run(world)["outcome"] == "published"
    assert client.manifest(world.store).ensemble.seed == 0
    assert client.manifest(world.store).digest == client.manifest(past.store).digest


def test_the_installed_command_publishes_with_every_product(world: World) -> None:
    world.write(products=["statistics", "spectra", "maps"])
    command = [sys.executable, "-m", "mosaic_core.cli", "run", str(FIRST), "-p", world.profile]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    manifest = client.manifest(world.store)
    assert {a.product for a in manifest.assets} == {"ensemble", "statistics", "spectra", "maps"}
    assert client.verify(world.store).ok


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns"])
def test_the_zone_of_the_machine_changes_neither_bytes_nor_times(
    zone: str, world: World, past: World
) -> None:
    outcome = mosaic("run", str(FIRST), "-p", world.profile, environment={"TZ": zone})
    assert outcome.code == 0, outcome.err
    there, here = client.manifest(world.store), client.manifest(past.store)
    assert there.prefix == here.prefix
    assert there.digest == here.digest
    assert {a.key: a.sha256 for a in there.assets} == {a.key: a.sha256 for a in here.assets}
    assert there.timeliness.nominal == FIRST.init_time
    with Catalog(world.catalog) as catalog:
        (row,) = catalog.runs()
        assert row.cycle == FIRST
        age = (there.timeliness.published - row.started).total_seconds()  # type: ignore[operator]
        assert 0 <= age < 120
    shown = mosaic("status", "-p", world.profile, "--json", environment={"TZ": zone})
    (told,) = plain(shown.out)["runs"]
    assert told["published"].endswith("+00:00")
    assert told["updated"] == row.updated.isoformat()


def test_reading_grib_leaves_the_catalog_a_sqlite_that_it_can_use() -> None:
    code = (
        "import mosaic_core.analysis.grib, sqlite3; print(sqlite3.sqlite_version_info >= (3, 35))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
