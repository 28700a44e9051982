"""Forecasts are verified against analyses of an archive as against those of the site."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from mosaic_core.catalog.models import VerificationScore as V
from mosaic_core.cycle import Cycle
from mosaic_core.errors import AnalysisMissing, AnalysisUnreadable, ConfigurationError
from mosaic_core.pipeline.site import Site
from mosaic_core.pipeline.truth import ArchivedAnalyses
from mosaic_core.pipeline.verification import verify, verify_due
from mosaic_core.verification.settings import VerificationSettings
from tests.pipeline.world import World, plain, write_source
from tests.verification.test_due import DUE, told

SETTINGS = VerificationSettings.load()


def scores(site: Site, truth: str) -> dict[tuple[object, ...], float]:
    keys = (V.cycle, V.lead_hours, V.variable, V.level, V.region, V.metric)
    with site.catalog._reading() as session:
        rows = session.query(*keys, V.value).filter(V.truth_source == truth).all()
    return {tuple(row[:-1]): row[-1] for row in rows}


def test_the_same_analyses_give_the_same_scores(world: World, site: Site, newest: Cycle) -> None:
    archived = ArchivedAnalyses(site, str(world.source), "archive", SETTINGS)
    report = verify(site, archived, newest.init_time)
    assert not report.failed
    assert {str(due) for due in report.verified} == DUE
    assert not verify(site, archived, newest.init_time).verified
    verify_due(site, newest)
    own = scores(site, "made-up")
    assert own
    assert scores(site, "archive") == own


def test_the_command_verifies_against_them(world: World, newest: Cycle) -> None:
    with xr.open_zarr(world.source, chunks=None) as ds:
        warmer = ds.assign({"2m_temperature": ds["2m_temperature"] + np.float32(1)}).load()
    for array in warmer.variables.values():
        array.encoding = {}
    other = Path(world.folder, "warmer.zarr")
    write_source(other, warmer)
    where = ("-p", world.profile)
    given = ("--truth", str(other), "--truth-name", "warmer")
    assert set(plain(told("verify", str(newest), *where, *given, "--json"))["verified"]) == DUE
    told("verify", str(newest), *where)
    shown = ("scores", *where, "--variable", "2t", "--lead", "6", "--last", "all", "--json")
    (here,), (there,) = (
        plain(told(*shown, *named))["scores"] for named in ((), ("--truth", "warmer"))
    )
    assert there["bias"] == pytest.approx(here["bias"] - 1, abs=1e-3)


def test_what_cannot_be_a_truth_is_refused(world: World, site: Site, newest: Cycle) -> None:
    with pytest.raises(ConfigurationError, match="another name"):
        ArchivedAnalyses(site, str(world.source), "made-up", SETTINGS)
    with pytest.raises(ConfigurationError, match="--truth-name NAME"):
        told("verify", "-p", world.profile, "--truth", str(world.source))
    (world.folder / "empty").mkdir()
    empty = ArchivedAnalyses(site, str(world.folder / "empty"), "empty", SETTINGS)
    with pytest.raises(AnalysisUnreadable, match="cannot be opened"):
        verify(site, empty, newest.init_time)
    with xr.open_zarr(world.source, chunks=None) as ds:
        cold = ds.drop_vars("temperature").load()
    write_source(world.folder / "few.zarr", cold)
    few = ArchivedAnalyses(site, str(world.folder / "few.zarr"), "few", SETTINGS)
    with pytest.raises(AnalysisMissing, match="temperature"):
        few.at(newest.init_time)
