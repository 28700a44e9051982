from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr

from mosaic_core.channels import Channels
from mosaic_core.cycle import Cycle
from mosaic_core.ensemble import store as module
from mosaic_core.ensemble.layout import EnsembleSpec, ForecastLayout
from mosaic_core.ensemble.store import ForecastStore, chunk_of
from mosaic_core.grid import LatLonGrid
from mosaic_core.storage import open_store

LAYOUT = ForecastLayout(
    cycle=Cycle.parse("2026-11-20T00Z"), variant="tiny", grid=LatLonGrid.with_poles(12, 7),
    channels=Channels.parse(["2m_temperature", "temperature_850"]), step_hours=6,
    spec=EnsembleSpec(3, 10), weights="0" * 64, state="", precision="float32", batch=2, window=4,
)  # fmt: skip


@pytest.mark.parametrize(
    ("window", "nlat", "nlon", "chunk"),
    [
        (8, 121, 240, (2, 80)),
        (8, 48, 96, (4, 96)),
        (6, 121, 240, (2, 80)),
        (8, 721, 1440, (2, 13)),
        (8, 20_000, 40_000, (1, 1)),
    ],
)
def test_a_chunk_is_a_band_of_a_few_steps(
    window: int, nlat: int, nlon: int, chunk: tuple[int, int]
) -> None:
    assert chunk_of(window, nlat, nlon) == chunk


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_whatever_the_chunks_a_forecast_reads_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    monkeypatch.setattr(module, "chunk_of", lambda *_: (steps, 5))
    store = ForecastStore.begin(open_store(tmp_path), "f", LAYOUT)
    rng = np.random.default_rng(0)
    expected = rng.standard_normal((2, 3, 10, 7, 12)).astype(np.float32)

    def write(store: ForecastStore, parts: list[tuple[int, int]]) -> None:
        for window, batch in parts:
            own = LAYOUT.batches[batch], LAYOUT.windows[window]
            members, leads = (slice(part.start - 1, part.stop - 1) for part in own)
            store.write(window, batch, expected[:, members, leads])

    write(store, list(store.written().missing())[:3])
    monkeypatch.undo()
    again = ForecastStore.begin(open_store(tmp_path), "f", LAYOUT)
    write(again, list(again.written().missing()))
    again.seal()
    found = again.open()
    assert zarr.open_group(tmp_path / "f/ensemble.zarr")["2m_temperature"].chunks[1:] == (
        steps, 7, 5,
    )  # fmt: skip
    np.testing.assert_array_equal(found["2m_temperature"].values, expected[0])
    np.testing.assert_array_equal(found["temperature"].values[:, :, 0], expected[1])
