"""Compute what an ensemble forecast lacks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from mosaic_core.ensemble.layout import EnsembleSpec, ForecastLayout
from mosaic_core.ensemble.store import ForecastStore, round_mantissa
from mosaic_core.errors import ConfigurationError, DeviceError
from mosaic_core.initial_state import InitialState
from mosaic_core.model.checkpoint import LoadedModel
from mosaic_core.model.config import ModelConfig
from mosaic_core.model.noise import batch_noise
from mosaic_core.model.rollout import Precision, rollout

BUFFER_BYTES = 1_250_000_000
"""Host memory for the window that is computed and the one that is written."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a rollout is. Member-steps count one member over one step.

    Attributes:
        done, total: member-steps, those of an earlier attempt included.
        rate: member-steps a second in this attempt.
        end: expected end, UTC.
        lead_hours: lead time up to which all members are written.
    """

    done: int
    total: int
    rate: float
    end: datetime
    lead_hours: int


def fitting_batch(
    config: ModelConfig, members: int, window: int, device: torch.device, history_bytes: int = 4
) -> int:
    """Members that are computed together: as many as the free memory holds, at most `members`.

    An activation of the finest mesh counts some 12 times in a step without gradients, hidden
    layers being cut to a fixed size; the host holds two windows of output besides.

    Raises:
        DeviceError: not even one member fits.
    """
    finest = config.trunk[0]
    state = config.lat_lon.nlon * config.lat_lon.nlat * len(config.channel_set) * 4
    per_member = 12 * finest.tokens * finest.dim * 4 + (3 * config.history + 2) * state
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        free = psutil.virtual_memory().available
    fits = int(0.7 * free // per_member)
    buffered = max(1, BUFFER_BYTES // (2 * window * state))
    if fits < 1:
        raise DeviceError(
            f"{free / 1e9:.1f} GB are free on {device}, one member of {config.name} takes some "
            f"{per_member / 1e9:.1f} GB",
            "memory for one member",
            "free memory, use another device or a smaller model",
        )
    batch = min(members, fits, buffered)
    return -(-members // -(-members // batch))


def layout_for(
    model: LoadedModel,
    state: InitialState,
    spec: EnsembleSpec,
    precision: Precision = "float32",
    keepbits: dict[str, int] | None = None,
    window: int = 8,
    batch: int | None = None,
) -> ForecastLayout:
    """The layout of a forecast by `model` from `state`.

    Raises:
        ConfigurationError: the state is not what this model starts from.
    """
    config = model.config
    if state.channels != config.channel_set or not state.grid.is_close(config.lat_lon):
        raise ConfigurationError(
            f"an initial state of {len(state.channels)} channels on {state.grid}",
            f"the {len(config.channel_set)} channels of {config.name} on {config.lat_lon}",
        )
    if len(state.values) != config.history:
        raise ConfigurationError(
            f"an initial state of {len(state.values)} times", f"{config.history} for {config.name}"
        )
    if spec.members > 1 and not config.perturbed:
        raise ConfigurationError(
            f"{spec.members} members of a deterministic model", "1: they would all be the same"
        )
    return ForecastLayout(
        cycle=state.cycle,
        variant=config.name,
        grid=config.lat_lon,
        channels=config.channel_set,
        step_hours=config.step_hours,
        spec=spec,
        weights=model.version.sha256,
        state=state.digest,
        precision=precision,
        batch=batch or fitting_batch(config, spec.members, window, model.device),
        window=window,
        keepbits=keepbits or {},
    )


def run_ensemble(
    model: LoadedModel,
    state: InitialState,
    store: ForecastStore,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Compute and write every window that the store lacks, then seal it.

    While a window is computed the one before is written. A run that was killed at any moment
    goes on at the first missing window; what it computes is bit for bit what an unbroken run
    would have, on the same device with the same batch.

    Raises:
        ForecastError: a state is not finite.
        StoreError: the store refuses; what was written before stays.
    """
    run = _Run(model, state, store, on_progress)
    with ThreadPoolExecutor(1, thread_name_prefix="store") as writer:
        run.compute(writer)
    store.seal()


class _Run:
    def __init__(
        self,
        model: LoadedModel,
        state: InitialState,
        store: ForecastStore,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.model, self.state, self.store, self.on_progress = model, state, store, on_progress
        self.layout = store.layout
        self.carried: dict[int, Tensor] = {}
        self.pending: Future[None] | None = None
        self.todo = list(store.missing())
        self.total = self.layout.spec.members * self.layout.spec.steps
        left = sum(self._size(window, batch) for window, batch in self.todo)
        self.before = self.total - left
        self.computed = 0
        self.written_windows = self.todo[0][0] if self.todo else len(self.layout.windows)
        self.started = time.monotonic()

    def _size(self, window: int, batch: int) -> int:
        return len(self.layout.windows[window]) * len(self.layout.batches[batch])

    def compute(self, writer: ThreadPoolExecutor) -> None:
        if self.before:
            _log.info(
                "resuming %s: %d of %d member-steps are there",
                self.layout.cycle,
                self.before,
                self.total,
            )
        for window, batch in self.todo:
            values = self._window(window, batch)
            self._settle()
            self.pending = writer.submit(self._write, window, batch, values)
        self._settle()

    def _settle(self) -> None:
        if self.pending is not None:
            self.pending.result()
            self.pending = None

    def _write(self, window: int, batch: int, values: NDArray[np.float32]) -> None:
        self.store.write(window, batch, values)
        if batch == len(self.layout.batches) - 1:
            self.written_windows = window + 1

    def _window(self, window: int, batch: int) -> NDArray[np.float32]:
        """One window of one batch: (channel, member, step, latitude, longitude)."""
        layout, config = self.layout, self.model.config
        members, steps = layout.batches[batch], layout.windows[window]
        history = self.carried.pop(batch, None)
        if history is None:
            history = self._history(batch, steps.start - 1)
        nlon, nlat = layout.grid.shape
        out = np.empty((len(layout.channels), len(members), len(steps), nlat, nlon), np.float32)
        into = torch.from_numpy(out)

        def noise(step: int) -> Tensor:
            raw = batch_noise(layout.spec.seed, layout.cycle, members, step, config.noise_dim)
            return torch.from_numpy(raw)

        precision: Precision = layout.precision  # type: ignore[assignment]
        start = layout.cycle.init_time
        last: list[Tensor] = []
        for i, step in enumerate(rollout(self.model, history, start, noise, steps, precision)):
            into[:, :, i].copy_(step.permute(3, 0, 2, 1))
            last = [*last, step][-config.history :]
            self.computed += len(members)
            self._report()
        for channel, values in zip(layout.channels, out, strict=True):
            if channel.variable in layout.keepbits:
                values[:] = round_mantissa(values, layout.keepbits[channel.variable])
        if window + 1 < len(layout.windows):
            self.carried[batch] = self._carry(history, last)
        return out

    def _carry(self, history: Tensor, last: list[Tensor]) -> Tensor:
        """The states that the next window starts from, with the precision that is stored."""
        recent = torch.cat((history, torch.stack(last, dim=1)), dim=1)[:, -history.shape[1] :]
        for index, channel in enumerate(self.layout.channels):
            bits = self.layout.keepbits.get(channel.variable)
            if bits is not None:
                rounded = round_mantissa(recent[..., index].cpu().numpy(), bits)
                recent[..., index] = torch.from_numpy(rounded).to(recent.device)
        return recent

    def _history(self, batch: int, last_step: int) -> Tensor:
        """States up to `last_step` of a batch, from the initial state and the store."""
        members, count = len(self.layout.batches[batch]), self.model.config.history
        initial = torch.from_numpy(self.state.values.copy()).expand(members, -1, -1, -1, -1)
        if last_step:
            steps = range(max(1, last_step - count + 1), last_step + 1)
            stored = torch.from_numpy(self.store.read_steps(batch, steps))
            initial = torch.cat((initial, stored), dim=1)[:, -count:]
        return initial.to(self.model.device).contiguous()

    def _report(self) -> None:
        elapsed = max(time.monotonic() - self.started, 1e-9)
        rate = self.computed / elapsed
        done = self.before + self.computed
        end = datetime.now(UTC) + timedelta(seconds=(self.total - done) / rate)
        windows = self.layout.windows[: self.written_windows]
        lead = (windows[-1].stop - 1) * self.layout.step_hours if windows else 0
        self.on_progress(Progress(done, self.total, rate, end, lead))
