from __future__ import annotations

import subprocess
import sys
import types
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
import xarray as xr

from mosaic_core.analysis.fields import FieldKey, assemble
from mosaic_core.analysis.sources import fetch_analysis, make_source, register
from mosaic_core.channels import Channels
from mosaic_core.cycle import Cycle
from mosaic_core.errors import AnalysisRejected, AnalysisUnreadable, ConfigurationError
from mosaic_core.grid import LatLonGrid
from mosaic_core.initial_state import InitialState

TIME = datetime(2026, 11, 20, tzinfo=UTC)
CHANNELS = Channels.parse(["2m_temperature", "temperature_500"])
GRID = LatLonGrid.with_poles(8, 5)


class Own:
    """A source from elsewhere."""

    name = "own"

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.spoil = settings.get("spoil", lambda ds: ds)

    def fetch(self, channels: Channels, valid_times: Sequence[datetime]) -> xr.Dataset:
        planes = {FieldKey.of(c): np.ones((5, 8), np.float32) for c in channels}
        ds = assemble(channels, valid_times, GRID, [planes] * len(valid_times))
        return self.spoil(ds)  # type: ignore[operator, no-any-return]


def test_the_simulated_source_is_found_by_its_import_string(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("mosaic_core.simulation.source")
    module.SimulatedSource = Own  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    ds = fetch_analysis(make_source({"kind": "simulated"}), Cycle(TIME), CHANNELS, [TIME])
    assert ds.attrs["source"] == "own"
    assert ds.attrs["degraded"] == "[]"


def test_a_source_that_is_not_installed_says_so() -> None:
    register("nowhere", "mosaic_core.nowhere:Source")
    with pytest.raises(ConfigurationError, match="not part of this installation"):
        make_source({"kind": "nowhere"})


def test_a_kind_cannot_be_taken_twice() -> None:
    with pytest.raises(ConfigurationError, match="there already"):
        register("zarr", Own)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda ds: ds.drop_vars("2m_temperature"), "no 2m_temperature"),
        (lambda ds: ds.astype("f8"), "float64"),
        (lambda ds: ds.isel(valid_time=0), "temperature is"),
        (lambda ds: ds.assign_coords(level=[850]), "levels"),
        (lambda ds: ds.assign_coords(valid_time=[np.datetime64("2000-01-01", "ns")]), "2000"),
    ],
)
def test_a_source_that_breaks_its_promise_is_refused(spoil: object, found: str) -> None:
    with pytest.raises(AnalysisUnreadable, match=found):
        fetch_analysis(Own({"spoil": spoil}), Cycle(TIME), CHANNELS, [TIME])


def state(**changes: object) -> InitialState:
    values = np.ones((1, 8, 5, 2), np.float32)
    arguments: dict[str, object] = {
        "cycle": Cycle(TIME),
        "grid": GRID,
        "channels": CHANNELS,
        "values": values,
        "valid_times": (TIME,),
    }
    return InitialState(**(arguments | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"values": np.ones((1, 5, 8, 2), np.float32)}, r"\(1, 5, 8, 2\)"),
        ({"values": np.ones((1, 8, 5, 2))}, "float64"),
        ({"values": np.full((1, 8, 5, 2), np.nan, np.float32)}, "2m_temperature, temperature at"),
        ({"valid_times": (datetime(2026, 11, 20),)}, "without a zone"),  # noqa: DTZ001
        ({"valid_times": (datetime(2026, 11, 19, tzinfo=UTC),)}, "the newest analysis is of"),
        (
            {"values": np.ones((2, 8, 5, 2), np.float32), "valid_times": (TIME, TIME)},
            "each later",
        ),
    ],
)
def test_an_initial_state_that_cannot_be_right_is_refused(
    changes: dict[str, object], found: str
) -> None:
    with pytest.raises(AnalysisRejected, match=found):
        state(**changes)


def test_an_older_history_is_allowed_only_when_marked() -> None:
    older = (datetime(2026, 11, 19, tzinfo=UTC),)
    assert state(valid_times=older, degraded=("analysis late",)).degraded == ("analysis late",)


def test_analysis_imports_neither_torch_nor_prefect_and_the_state_only_numpy() -> None:
    code = (
        "import sys, {0}; "
        "print(*sorted({{m.split('.')[0] for m in sys.modules}} & "
        "{{'torch', 'prefect', 'xarray', 'eccodes', 'gcsfs'}}))"
    )

    def imported(module: str) -> str:
        command = [sys.executable, "-c", code.format(module)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert imported("mosaic_core.analysis.initial_state") == "xarray"
    assert imported("mosaic_core.initial_state") == ""
    assert imported("mosaic_core.analysis") == ""
