from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from mosaic_core.cycle import Cycle
from mosaic_core.ensemble.layout import EnsembleSpec
from mosaic_core.ensemble.run import Progress, fitting_batch, layout_for, run_ensemble
from mosaic_core.ensemble.store import ForecastStore, round_mantissa
from mosaic_core.errors import (
    ConfigurationError,
    DeviceError,
    ForecastError,
    IntegrityError,
    StoreError,
)
from mosaic_core.initial_state import InitialState
from mosaic_core.model.checkpoint import LoadedModel
from mosaic_core.model.config import ModelConfig
from mosaic_core.model.noise import batch_noise
from mosaic_core.model.rollout import rollout
from mosaic_core.storage import open_store
from tests.model import golden_model

CYCLE = Cycle.parse("2026-11-20T00Z")
SPEC = EnsembleSpec(members=3, steps=7, seed=5)


@pytest.fixture(scope="module")
def model(golden: Path) -> LoadedModel:
    torch.set_num_threads(1)
    return golden_model.load(golden, "hresmini")


@pytest.fixture(scope="module")
def state(golden: Path, model: LoadedModel) -> InitialState:
    values = golden_model.arrays(golden / "hresmini/rollout.npz")["x0"][0].numpy()
    config = model.config
    times = tuple(CYCLE.history_times(config.history, config.step_hours))
    return InitialState(CYCLE, config.lat_lon, config.channel_set, values, times)


def begin(
    folder: Path, model: LoadedModel, state: InitialState, **changes: object
) -> ForecastStore:
    layout = layout_for(model, state, SPEC, window=2, batch=2)
    return ForecastStore.begin(open_store(folder), "f", replace(layout, **changes))  # type: ignore[arg-type]


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def files_of(folder: Path) -> int:
    """Files under a folder that another process is writing and clearing."""
    return sum(len(files) for _, _, files in os.walk(folder))


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, model: LoadedModel, state: InitialState
) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    run_ensemble(model, state, begin(folder, model, state))
    return content(folder)


def test_the_store_holds_what_the_rollout_yields(
    tmp_path: Path, model: LoadedModel, state: InitialState
) -> None:
    store = begin(tmp_path, model, state)
    run_ensemble(model, state, store)
    dataset = store.open()
    history = torch.from_numpy(state.values.copy())[None].expand(2, -1, -1, -1, -1)

    def noise(step: int) -> torch.Tensor:
        return torch.from_numpy(batch_noise(5, CYCLE, [1, 2], step, model.config.noise_dim))

    steps = list(rollout(model, history, CYCLE.init_time, noise, range(1, 8)))
    for index, channel in enumerate(model.config.channel_set):
        field = dataset[channel.variable]
        if channel.level is not None:
            field = field.sel(level=channel.level)
        found = field.sel(number=[1, 2]).transpose("lead_time", "number", "longitude", "latitude")
        expected = torch.stack(steps)[..., index]
        np.testing.assert_array_equal(found.values, expected.numpy())


def test_the_store_describes_itself(
    tmp_path: Path, model: LoadedModel, state: InitialState
) -> None:
    dataset = begin(tmp_path, model, state).open()
    assert dataset.sizes["number"] == 3
    assert list(dataset.number.values) == [1, 2, 3]
    hours = dataset.lead_time.values / np.timedelta64(1, "h")
    assert list(hours) == [6, 12, 18, 24, 30, 36, 42]
    assert dataset.init_time.values == np.datetime64("2026-11-20T00")
    assert set(dataset.coords) >= {"init_time", "valid_time", "level", "latitude", "longitude"}
    assert dataset.valid_time.values[0] == np.datetime64("2026-11-20T06")
    assert dataset.latitude.values[0] == -90
    assert dataset.geopotential.attrs["standard_name"] == "geopotential"
    assert dataset.number.attrs["standard_name"] == "realization"


@pytest.mark.parametrize("windows", [1, 2, 5])
def test_a_run_that_stopped_between_windows_goes_on_bit_for_bit(
    tmp_path: Path, model: LoadedModel, state: InitialState, whole: dict[str, bytes], windows: int
) -> None:
    store = begin(tmp_path, model, state)
    written = 0
    plain = ForecastStore.write

    def stop_after(self: ForecastStore, *given: object) -> None:
        nonlocal written
        if written == windows:
            raise StoreError("the disk is full", "space", "free some")
        written += 1
        plain(self, *given)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ForecastStore, "write", stop_after)
        with pytest.raises(StoreError, match="full"):
            run_ensemble(model, state, store)
    again = begin(tmp_path, model, state)
    assert len(again.written().windows) == windows
    run_ensemble(model, state, again)
    assert content(tmp_path) == whole


def _run(folder: Path, golden: Path, state_values: np.ndarray) -> None:
    torch.set_num_threads(1)
    model = golden_model.load(golden, "hresmini")
    config = model.config
    times = tuple(CYCLE.history_times(config.history, config.step_hours))
    state = InitialState(CYCLE, config.lat_lon, config.channel_set, state_values, times)
    run_ensemble(model, state, begin(folder, model, state))


def test_a_run_that_is_killed_at_any_moment_goes_on_bit_for_bit(
    tmp_path: Path, golden: Path, state: InitialState, whole: dict[str, bytes]
) -> None:
    context = multiprocessing.get_context("spawn")
    started = time.monotonic()
    deaths = 0
    while True:
        process = context.Process(target=_run, args=(tmp_path, golden, state.values))
        process.start()
        seen = files_of(tmp_path)
        pause = 0.15 * (deaths + 1)
        while process.is_alive() and deaths < 4:
            if files_of(tmp_path) > seen + 3 * deaths:
                time.sleep(pause)
                os.kill(process.pid or 0, signal.SIGKILL)
                break
            time.sleep(0.005)
        process.join(120)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        deaths += 1
        assert time.monotonic() - started < 200
    assert content(tmp_path) == whole


def test_a_member_does_not_depend_on_the_others(
    tmp_path: Path, model: LoadedModel, state: InitialState
) -> None:
    stores = [begin(tmp_path / str(batch), model, state, batch=batch) for batch in (1, 3)]
    for store in stores:
        run_ensemble(model, state, store)
    one, three = (store.open().geopotential.values for store in stores)
    spread = np.abs(three[0] - three[1]).max()
    assert spread > 1
    assert np.abs(one - three).max() < 1e-3 * spread


def test_an_unfinished_store_of_another_forecast_is_not_touched(
    tmp_path: Path, model: LoadedModel, state: InitialState
) -> None:
    begin(tmp_path, model, state)
    before = content(tmp_path)
    with pytest.raises(ForecastError, match="seed 5 is stored, this run has 6"):
        begin(tmp_path, model, state, spec=EnsembleSpec(3, 7, 6))
    assert content(tmp_path) == before


def test_the_batch_of_an_interrupted_run_is_kept(
    tmp_path: Path, model: LoadedModel, state: InitialState
) -> None:
    begin(tmp_path, model, state, batch=2)
    assert begin(tmp_path, model, state, batch=3).layout.batch == 2


def test_an_interrupted_creation_starts_again(
    tmp_path: Path, model: LoadedModel, state: InitialState, whole: dict[str, bytes]
) -> None:
    store = begin(tmp_path, model, state)
    (tmp_path / "f/ensemble.zarr/zarr.json").write_text(
        '{"zarr_format": 3, "node_type": "group", "attributes": {}}'
    )
    store = begin(tmp_path, model, state)
    run_ensemble(model, state, store)
    assert content(tmp_path) == whole


def test_a_store_with_missing_windows_is_not_sealed(
    tmp_path: Path, model: LoadedModel, state: InitialState
) -> None:
    store = begin(tmp_path, model, state)
    with pytest.raises(ForecastError, match="8 windows"):
        store.seal()


def test_rounded_storage_keeps_its_bits_and_resumes_alike(
    tmp_path: Path, model: LoadedModel, state: InitialState
) -> None:
    bits = {"geopotential": 12, "2m_temperature": 10}
    folders = [tmp_path / name for name in "ab"]
    run_ensemble(model, state, begin(folders[0], model, state, keepbits=bits))
    store = begin(folders[1], model, state, keepbits=bits)
    with pytest.MonkeyPatch.context() as patch:
        plain = ForecastStore.write

        def write(self: ForecastStore, window: int, batch: int, values: np.ndarray) -> None:
            if window == 2:
                raise StoreError("gone")
            plain(self, window, batch, values)

        patch.setattr(ForecastStore, "write", write)
        with pytest.raises(StoreError):
            run_ensemble(model, state, store)
    run_ensemble(model, state, begin(folders[1], model, state, keepbits=bits))
    assert content(folders[0]) == content(folders[1])
    stored = store.open()
    assert stored.geopotential.attrs["keepbits"] == 12
    fields = stored.geopotential.values
    np.testing.assert_array_equal(round_mantissa(fields, 12), fields)


def test_rounding_is_to_nearest_and_bounded() -> None:
    values = np.random.default_rng(0).normal(250, 30, 10000).astype(np.float32)
    for bits in (6, 12, 16):
        rounded = round_mantissa(values, bits)
        assert np.abs(rounded / values - 1).max() <= 2.0 ** -(bits + 1)
        np.testing.assert_array_equal(round_mantissa(rounded, bits), rounded)


def test_a_state_that_is_not_finite_stops_the_run_by_name(
    tmp_path: Path, golden: Path, state: InitialState
) -> None:
    model = golden_model.load(golden, "hresmini")
    model.network.postprocess[3].weight.data[4] = torch.inf
    with pytest.raises(ForecastError, match=r"step 1 \(6 h\): .* member 1 is not finite"):
        run_ensemble(model, state, begin(tmp_path, model, state))


def test_progress_ends_with_everything_done(
    tmp_path: Path, model: LoadedModel, state: InitialState
) -> None:
    seen: list[Progress] = []
    run_ensemble(model, state, begin(tmp_path, model, state), seen.append)
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == 21
    assert seen[-1].rate > 0
    assert seen[-1].end - seen[0].end < timedelta(minutes=5)


def test_the_batch_fits_the_memory(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert fitting_batch(model.config, 24, 8, cpu) == 24
    memory = type("Memory", (), {"available": 1000})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    with pytest.raises(DeviceError, match="one member of hresmini takes"):
        fitting_batch(model.config, 24, 8, cpu)


@pytest.mark.parametrize(("free", "fitting"), [(22.7e9, 24), (4.7e9, 4)])
def test_the_whole_model_fits_24_members_in_24_gb_and_some_in_6(
    free: float, fitting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: None)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, 80e9))
    config = ModelConfig.load("hres")
    assert fitting_batch(config, 24, 1, torch.device("cuda"), fused=True) == fitting
    memory = type("Memory", (), {"available": 64_000_000_000})
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)  # of the host, for the windows
    assert fitting_batch(config, 24, 8, torch.device("cuda"), fused=True) == fitting
    with pytest.raises(DeviceError) if free < 5e9 else nullcontext():
        assert fitting_batch(config, 24, 1, torch.device("cuda")) < fitting


def test_several_members_of_a_deterministic_model_are_refused(
    model: LoadedModel, state: InitialState
) -> None:
    still = replace(model, config=replace(model.config, ablations=("deterministic",)))
    with pytest.raises(ConfigurationError, match="all be the same"):
        layout_for(still, state, SPEC)


def test_a_state_of_another_model_is_refused(model: LoadedModel, state: InitialState) -> None:
    other = replace(model, config=replace(model.config, history=2))
    with pytest.raises(ConfigurationError, match="4 times; expected: 2"):
        layout_for(other, state, SPEC)


def late_state(state: InitialState) -> InitialState:
    """The same analyses for a cycle 12 h later."""
    return InitialState(
        CYCLE.shift(12),
        state.grid,
        state.channels,
        state.values,
        state.valid_times,
        degraded=("two analyses are missing",),
    )


@pytest.mark.parametrize("window", [1, 2, 8])
def test_a_start_from_an_older_history_leads_to_the_right_times(
    tmp_path: Path, model: LoadedModel, state: InitialState, window: int
) -> None:
    late = late_state(state)
    layout = layout_for(model, late, SPEC, window=window, batch=2)
    store = ForecastStore.begin(open_store(tmp_path), "f", layout)
    with pytest.MonkeyPatch.context() as patch:
        plain = ForecastStore.write

        def write(self: ForecastStore, index: int, *given: object) -> None:
            if index == 1:
                raise StoreError("gone")
            plain(self, index, *given)  # type: ignore[arg-type]

        patch.setattr(ForecastStore, "write", write)
        if window < 8:
            with pytest.raises(StoreError):
                run_ensemble(model, late, store)
    run_ensemble(model, late, ForecastStore.begin(open_store(tmp_path), "f", layout))

    def noise(step: int) -> torch.Tensor:
        raw = batch_noise(5, late.cycle, [1, 2], step, model.config.noise_dim)
        return torch.from_numpy(raw)

    history = torch.from_numpy(state.values.copy())[None].expand(2, -1, -1, -1, -1)
    steps = list(rollout(model, history, state.valid_times[-1], noise, range(1, 10)))
    found = store.open()["2m_temperature"]
    index = model.config.channel_set.index("2m_temperature")
    assert found.valid_time.values[0] == np.datetime64("2026-11-20T18")
    for i in range(7):
        expected = steps[i + 2][..., index].permute(0, 2, 1).numpy()
        np.testing.assert_array_equal(found.isel(lead_time=i, number=[0, 1]).values, expected)


def test_an_older_history_that_no_step_leads_from_is_refused(
    golden: Path, state: InitialState
) -> None:
    daily = golden_model.load(golden, "era5mini")
    values = golden_model.arrays(golden / "era5mini/rollout.npz")["x0"][0].numpy()
    config = daily.config
    times = tuple(CYCLE.history_times(config.history, config.step_hours))
    late = InitialState(
        CYCLE.shift(6), config.lat_lon, config.channel_set, values, times, degraded=("late",)
    )
    with pytest.raises(ConfigurationError, match="a multiple of the 24 h steps"):
        layout_for(daily, late, SPEC)


@pytest.mark.parametrize("window", [1, 3])
def test_rounded_windows_shorter_than_the_history_resume_alike(
    tmp_path: Path, model: LoadedModel, state: InitialState, window: int
) -> None:
    bits = {"geopotential": 8, "2m_temperature": 8}
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        changes = {"keepbits": bits, "window": window, "batch": 3}
        if folder == folders[1]:
            with pytest.MonkeyPatch.context() as patch:
                plain = ForecastStore.write

                def write(self: ForecastStore, index: int, *given: object, plain=plain) -> None:  # type: ignore[no-untyped-def]
                    if index == 1:
                        raise StoreError("gone")
                    plain(self, index, *given)

                patch.setattr(ForecastStore, "write", write)
                with pytest.raises(StoreError):
                    run_ensemble(model, state, begin(folder, model, state, **changes))
        run_ensemble(model, state, begin(folder, model, state, **changes))
    assert content(folders[0]) == content(folders[1])


def test_remains_without_consolidated_metadata_are_made_anew(
    tmp_path: Path, model: LoadedModel, state: InitialState, whole: dict[str, bytes]
) -> None:
    begin(tmp_path, model, state)
    path = tmp_path / "f/ensemble.zarr/zarr.json"
    document = json.loads(path.read_text())
    del document["consolidated_metadata"]
    path.write_text(json.dumps(document))
    run_ensemble(model, state, begin(tmp_path, model, state))
    assert content(tmp_path) == whole


def test_remains_of_another_forecast_are_discarded_when_told_so(
    tmp_path: Path, model: LoadedModel, state: InitialState, whole: dict[str, bytes]
) -> None:
    begin(tmp_path, model, state, spec=EnsembleSpec(2, 7, 6))
    told: list[str] = []
    layout = layout_for(model, state, SPEC, window=2, batch=2)
    store = ForecastStore.begin(open_store(tmp_path), "f", layout, discard=told.append)
    run_ensemble(model, state, store)
    assert content(tmp_path) == whole
    assert "members 2 is stored" in told[0]


def test_a_device_without_memory_is_an_error_that_says_so(
    tmp_path: Path, golden: Path, state: InitialState
) -> None:
    model = golden_model.load(golden, "hresmini")

    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.network.preprocess.register_forward_pre_hook(exhausted)
    with pytest.raises(DeviceError, match="no memory for 2 members"):
        run_ensemble(model, state, begin(tmp_path, model, state))


def test_a_damaged_window_is_named_when_a_run_goes_on_from_it(
    tmp_path: Path, model: LoadedModel, state: InitialState
) -> None:
    store = begin(tmp_path, model, state, window=4)
    with pytest.MonkeyPatch.context() as patch:
        plain = ForecastStore.write

        def write(self: ForecastStore, index: int, *given: object) -> None:
            if index == 1:
                raise StoreError("gone")
            plain(self, index, *given)  # type: ignore[arg-type]

        patch.setattr(ForecastStore, "write", write)
        with pytest.raises(StoreError):
            run_ensemble(model, state, store)
    for victim in (tmp_path / "f/ensemble.zarr/geopotential/c").rglob("*"):
        if victim.is_file():
            victim.write_bytes(victim.read_bytes()[:-40] + bytes(40))
    with pytest.raises(IntegrityError, match=r"geopotential .* is damaged"):
        run_ensemble(model, state, begin(tmp_path, model, state, window=4))
