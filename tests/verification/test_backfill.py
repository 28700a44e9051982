"""A backfill on Dask makes the rows and arrays that the plain path makes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from mosaic_core.analysis.store import analysis_key
from mosaic_core.cycle import Cycle
from mosaic_core.errors import AnalysisMissing, ConfigurationError, StoreError
from mosaic_core.pipeline import computing
from mosaic_core.pipeline.truth import StoredAnalyses
from mosaic_core.pipeline.verification import VerificationReport, verify_due
from mosaic_core.pipeline.verifier import Due, Verified, Verifier
from mosaic_core.verification import arrays
from mosaic_core.verification.settings import VerificationSettings
from tests.pipeline.world import World, copy_of, plain
from tests.servers import free_port
from tests.verification.conftest import CYCLES, site_of
from tests.verification.test_due import DUE, all_scores

SETTINGS = VerificationSettings.load()
FIRST_DUE = Due(CYCLES[1].init_time, CYCLES[0], 1, 6)
Made = tuple[list[tuple[object, ...]], list[bytes]]


def made(world: World, where: str | None = None) -> tuple[Made, VerificationReport]:
    """Rows and kept arrays of all that has come true, and the report."""
    site = site_of(world)
    chosen = computing.one_ahead if where is None else computing.on_dask(where)
    report = verify_due(site, CYCLES[-1], SETTINGS, since=CYCLES[0], computing=chosen)
    kept = [arrays.read(site.store, arrays.key_of("tiny", "made-up", c)) for c in CYCLES[:2]]
    bits = [array.values.tobytes() for ds in kept if ds is not None for array in ds.values()]
    rows = all_scores(site)
    site.catalog.close()
    return (rows, bits), report


@pytest.fixture
def expected(world: World, tmp_path: Path) -> Made:
    found, report = made(copy_of(world, tmp_path / "plain"))
    assert {str(due) for due in report.verified} == DUE
    return found


def test_threads_of_dask_make_the_same(world: World, expected: Made) -> None:
    found, report = made(world, "local")
    assert {str(due) for due in report.verified} == DUE
    assert found == expected


def test_no_more_is_computed_than_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    def answer_of(_: object, due: int) -> tuple[int, None]:
        begun.append(due)
        return due, None

    monkeypatch.setattr(computing, "answer_of", answer_of)
    monkeypatch.setattr(computing.os, "cpu_count", lambda: 2)  # type: ignore[attr-defined]
    for where, ahead in ((computing.one_ahead, 2), (computing.on_dask("local"), 3)):
        begun.clear()
        for taken, (due, _) in enumerate(where(None, range(100)), start=1):  # type: ignore[arg-type]
            assert due == taken - 1
            assert len(begun) <= taken + ahead
        assert sorted(begun) == list(range(100))


def test_what_fails_on_dask_is_named_and_leaves_the_others(world: World, newest: Cycle) -> None:
    time = CYCLES[0].init_time
    folder = Path(world.store, f"forecasts/v1/tiny/{time:%Y/%m/%d/%H}Z/ensemble.zarr")
    zarr.open_group(folder)["2m_temperature"][1, 0, 3, 4] = np.nan
    report = made(world, "local")[1]
    assert [str(due) for due, _ in report.failed] == [f"{CYCLES[0]} +6 h"]
    assert {str(due) for due in report.verified} == DUE - {f"{CYCLES[0]} +6 h"}


def test_since_takes_what_is_too_old_and_too_many(world: World) -> None:
    site = site_of(world)
    settings = replace(SETTINGS, at_most=1, max_age_days=5)
    old = CYCLES[-1].shift(24 * 30)
    assert not verify_due(site, old, settings).verified
    report = verify_due(site, old, settings, since=CYCLES[1])
    assert [str(due) for due in report.verified] == [f"{CYCLES[1]} +6 h"]
    report = verify_due(site, old, settings, since=CYCLES[0])
    assert {str(due) for due in report.verified} == DUE - {f"{CYCLES[1]} +6 h"}
    assert report.left == 0


def test_the_command_makes_up_a_period_on_dask(world: World, newest: Cycle) -> None:
    from mosaic_core.cli import app

    words = ("verify", str(newest), "-p", world.profile, "--json")
    outcome = CliRunner().invoke(app, [*words, "--since", str(CYCLES[0]), "--dask", "local"])
    assert outcome.exit_code == 0, outcome.output
    found = plain(outcome.stdout)
    assert set(found["verified"]) == DUE
    assert any(name.endswith("2026-03.html") for name in found["pictures"])


@pytest.mark.parametrize("missing", ["dask", "distributed"])
def test_dask_that_is_not_installed_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=f"{missing} is not installed"):
        computing.on_dask("local" if missing == "dask" else "tcp://127.0.0.1:1")


@pytest.mark.filterwarnings("ignore")  # of the cluster itself, whose threads outlive a test
@pytest.mark.slow
class TestCluster:
    @pytest.fixture
    def address(self) -> Iterator[str]:
        distributed = pytest.importorskip("distributed")
        with distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, host="127.0.0.1",
            dashboard_address=None,
        ) as cluster:  # fmt: skip
            yield cluster.scheduler_address

    def test_a_cluster_makes_the_same(self, world: World, expected: Made, address: str) -> None:
        found, report = made(world, address)
        assert {str(due) for due in report.verified} == DUE
        assert found == expected

    def test_what_fails_on_a_cluster_comes_back_as_it_was(self, world: World, address: str) -> None:
        time = CYCLES[0].init_time
        folder = Path(world.store, f"forecasts/v1/tiny/{time:%Y/%m/%d/%H}Z/ensemble.zarr")
        zarr.open_group(folder)["2m_temperature"][1, 0, 3, 4] = np.nan
        ((due, reason),) = made(world, address)[1].failed
        assert str(due) == f"{CYCLES[0]} +6 h"
        assert "2m_temperature of the forecast not finite" in reason

    def test_a_later_call_sees_the_store_anew(self, world: World, address: str) -> None:
        site = site_of(world)
        verifier = Verifier(site, StoredAnalyses(site), SETTINGS)
        on_cluster = computing.on_dask(address)
        ((_, found),) = on_cluster(verifier, [FIRST_DUE])
        assert isinstance(found, Verified)
        shutil.rmtree(Path(world.store, analysis_key("made-up", FIRST_DUE.valid_time)))
        ((_, found),) = on_cluster(verifier, [FIRST_DUE])
        assert isinstance(found, AnalysisMissing)
        site.catalog.close()

    def test_a_worker_makes_no_store_and_no_catalog(
        self, world: World, address: str, tmp_path: Path
    ) -> None:
        site = site_of(world)
        for folder in (tmp_path / "absent", Path(world.store)):
            catalog = f"sqlite:///{tmp_path}/catalogs/catalog.db"
            profile = replace(site.profile, store=str(folder), catalog=catalog)
            elsewhere = Verifier(replace(site, profile=profile), StoredAnalyses(site), SETTINGS)
            compute = computing.on_dask(address)(elsewhere, [FIRST_DUE])
            if folder.exists():
                assert isinstance(next(compute)[1], Verified)
            else:
                with pytest.raises(StoreError, match=r"worker on .* there is no folder .*mount it"):
                    next(compute)
            assert not (tmp_path / "absent").exists()
            assert not (tmp_path / "catalogs").exists()
        site.catalog.close()

    def test_a_scheduler_that_does_not_answer_is_named(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("distributed")
        monkeypatch.setattr(computing, "_ASK_SECONDS", 1)
        with pytest.raises(ConfigurationError, match="no Dask scheduler at"):
            made(world, f"tcp://127.0.0.1:{free_port()}")
