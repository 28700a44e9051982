"""Compute what an ensemble forecast lacks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from mosaic_core.ensemble.layout import EnsembleSpec, ForecastLayout
from mosaic_core.ensemble.outgoing import Outgoing
from mosaic_core.ensemble.store import ForecastStore, round_mantissa
from mosaic_core.errors import ConfigurationError, DeviceError
from mosaic_core.initial_state import InitialState
from mosaic_core.model.checkpoint import LoadedModel
from mosaic_core.model.config import ModelConfig
from mosaic_core.model.forward import forward_of, not_fused
from mosaic_core.model.fused import Precision
from mosaic_core.model.noise import batch_noise
from mosaic_core.model.rollout import rollout

BUFFER_BYTES = 1_250_000_000
"""Host memory for the window that is computed and the one that is written."""

_GPU_PIECES = 5 << 30
"""Gathered keys and values, hidden layers and scores, module by module."""

_FUSED_PIECES = 1 << 30
"""Packed weights and workspaces of the fused network."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a rollout is. Member-steps count one member over one step.

    Attributes:
        done, total: member-steps, those of an earlier attempt included.
        rate: member-steps a second in this attempt.
        end: expected end, UTC.
        lead_hours: lead time up to which all these members are written.
    """

    done: int
    total: int
    rate: float
    end: datetime
    lead_hours: int


def fitting_batch(
    config: ModelConfig, members: int, window: int, device: torch.device, fused: bool = False
) -> int:
    """Members that are computed together: as many as the free memory holds, at most `members`.

    Module by module an activation of the finest mesh counts some 12 times in a step; fused it
    counts in 16 bits, beside the hidden layer of all tokens and one more. Scores of key blocks grow
    with the square of the blocks. The host holds two windows of output besides.

    Args:
        fused: whether steps go through the fused kernels.

    Raises:
        DeviceError: not even one member fits.
    """
    finest = config.trunk[0]
    state = config.lat_lon.nlon * config.lat_lon.nlat * len(config.channel_set) * 4
    if fused:
        activations, pieces = 2 * finest.tokens * (2 * finest.dim + finest.hidden), _FUSED_PIECES
    else:
        activations, pieces = 4 * finest.tokens * 12 * finest.dim, _GPU_PIECES
    blocks = max((s.tokens // s.block) ** 2 * s.kv_heads for s in config.trunk)
    per_member = activations + (3 * config.history + 2) * state + 3 * 4 * blocks
    free = _free_memory(device, pieces)
    fits = int(0.7 * free // per_member)
    buffered = max(1, _buffer_bytes(device) // (2 * window * state))
    if fits < 1:
        raise DeviceError(
            f"{free / 1e9:.1f} GB are free on {device}, one member of {config.name} takes some "
            f"{per_member / 1e9:.1f} GB",
            "memory for one member",
            "free memory, use another device or a smaller model",
        )
    batch = min(members, fits, buffered)
    return -(-members // -(-members // batch))


def _buffer_bytes(device: torch.device) -> int:
    """Host memory for two windows: fixed where the model lies there too, else a quarter of it."""
    if device.type != "cuda":
        return BUFFER_BYTES
    return max(BUFFER_BYTES, int(psutil.virtual_memory().available) // 4)


def _free_memory(device: torch.device, pieces: int) -> int:
    """Bytes that a step may use, without the `pieces` of fixed size on a GPU."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return int(max(0, torch.cuda.mem_get_info(device)[0] - pieces))
    free = int(psutil.virtual_memory().available)
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return free
    return min(free, max(0, limit - used))


def lag_of(config: ModelConfig, state: InitialState) -> int:
    """Steps from the newest analysis of a state to its initial time; 0 unless it is degraded.

    Raises:
        ConfigurationError: no whole number of steps leads there.
    """
    behind = state.cycle.init_time - state.valid_times[-1]
    lag, rest = divmod(behind, timedelta(hours=config.step_hours))
    if rest or lag < 0:
        raise ConfigurationError(
            f"the newest analysis is {behind} before {state.cycle}",
            f"a multiple of the {config.step_hours} h steps of {config.name}",
            "start from an analysis that steps lead from to the initial time",
        )
    return lag


def _out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def layout_for(
    model: LoadedModel,
    state: InitialState,
    spec: EnsembleSpec,
    precision: Precision = "float32",
    keepbits: dict[str, int] | None = None,
    window: int = 8,
    batch: int | None = None,
    members_per_run: int | None = None,
) -> ForecastLayout:
    """The layout of a forecast by `model` from `state`.

    Args:
        batch: members that are computed together; as many as the memory holds by default, and
            at most `members_per_run`.

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
    lag_of(config, state)
    together = min(spec.members, members_per_run or spec.members)
    fused = not_fused(config, model.device, precision) is None
    return ForecastLayout(
        cycle=state.cycle,
        variant=config.name,
        grid=config.lat_lon,
        channels=config.channel_set,
        step_hours=config.step_hours,
        spec=spec,
        weights=model.version.sha256,
        code_version=model.version.code_version,
        device=model.device.type,
        state=state.digest,
        precision=precision,
        batch=batch or fitting_batch(config, together, window, model.device, fused),
        window=window,
        keepbits=keepbits or {},
    )


def run_ensemble(
    model: LoadedModel,
    state: InitialState,
    store: ForecastStore,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Compute and write all members, see `run_members`, then seal the store."""
    run_members(model, state, store, None, on_progress)
    store.seal()


def run_members(
    model: LoadedModel,
    state: InitialState,
    store: ForecastStore,
    members: range | None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    *,
    cuda_graph: bool = False,
) -> None:
    """Compute and write every window of a part of the members that the store lacks.

    While a window is computed the one before is written. A run that was killed at any moment
    goes on at the first missing window; what it computes is bit for bit what an unbroken run
    would have, on the same device with the same batch. So are the members of parts that run
    apart: a part has whole batches, and nothing in a batch depends on another.

    Args:
        members: the part (from 1): the batches that begin among them; None is all.
        cuda_graph: replay steps on a GPU as one graph.

    Raises:
        ForecastError: a state is not finite.
        StoreError: the store refuses; what was written before stays.
    """
    with Outgoing(model.device) as outgoing:
        run = _Run(model, state, store, members, on_progress, outgoing, cuda_graph)
        with ThreadPoolExecutor(1, thread_name_prefix="store") as writer:
            run.compute(writer)


class _Run:
    def __init__(
        self,
        model: LoadedModel,
        state: InitialState,
        store: ForecastStore,
        members: range | None,
        on_progress: Callable[[Progress], None],
        outgoing: Outgoing,
        cuda_graph: bool,
    ) -> None:
        self.outgoing = outgoing
        self.model, self.state, self.store, self.on_progress = model, state, store, on_progress
        self.layout = store.layout
        self.lag = lag_of(model.config, state)
        cut = self.layout.cut
        self.batches = cut.batches_of(members or range(1, cut.members + 1))
        # Several batches on a CPU read their history back: the host's memory is for the windows.
        self.carries = len(self.batches) == 1 or model.device.type == "cuda"
        self.carried: dict[int, Tensor] = {}
        self.pending: Future[None] | None = None
        precision: Precision = self.layout.precision  # type: ignore[assignment]
        self.forward = forward_of(model.network, precision, cuda_graph)
        self.todo = list(store.written().missing(members))
        self.total = sum(len(cut.batches[i]) for i in self.batches) * cut.steps
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
        if batch == self.batches[-1]:
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
        last: list[Tensor] = []
        for i, step in enumerate(self._rollout(batch, history, steps)):
            self.outgoing.put(step, into[:, :, i])
            if self.carries:
                last = [*last, step][-config.history :]
            self.computed += len(members)
            self._report()
        self.outgoing.settle()
        for channel, values in zip(layout.channels, out, strict=True):
            if channel.variable in layout.keepbits:
                values[:] = round_mantissa(values, layout.keepbits[channel.variable])
        if window + 1 < len(layout.windows) and self.carries:
            self.carried[batch] = self._carry(history, last)
        return out

    def _rollout(self, batch: int, history: Tensor, steps: range) -> Iterator[Tensor]:
        """States after `steps`, which count from the initial time of the forecast.

        Noise and phases count from the newest analysis, `lag` steps before it.
        """
        layout, size = self.layout, self.model.config.noise_dim
        members = layout.batches[batch]

        def noise(step: int) -> Tensor:
            raw = batch_noise(layout.spec.seed, layout.cycle, members, step, size)
            return torch.from_numpy(raw)

        since = range(steps.start + self.lag, steps.stop + self.lag)
        try:
            yield from rollout(
                self.model, history, self.state.valid_times[-1], noise, since, self.forward
            )
        except RuntimeError as error:
            if not _out_of_memory(error):
                raise
            raise DeviceError(
                f"{self.model.device} has no memory for {len(members)} members at once",
                f"memory for the batch of {layout.batch} that this forecast was begun with",
                "free memory on the device, or remove the unfinished forecast and run again",
            ) from error

    def _carry(self, history: Tensor, last: list[Tensor]) -> Tensor:
        """The states that the next window starts from, with the precision that is stored."""
        recent = torch.stack(last, dim=1)
        for index, channel in enumerate(self.layout.channels):
            bits = self.layout.keepbits.get(channel.variable)
            if bits is not None:
                rounded = round_mantissa(recent[..., index].cpu().numpy(), bits)
                recent[..., index] = torch.from_numpy(rounded).to(recent.device)
        return torch.cat((history, recent), dim=1)[:, -history.shape[1] :]

    def _history(self, batch: int, last_step: int) -> Tensor:
        """States up to `last_step` of a batch, from the initial state and the store."""
        members, count = len(self.layout.batches[batch]), self.model.config.history
        states = torch.from_numpy(self.state.values.copy()).expand(members, -1, -1, -1, -1)
        states = states.to(self.model.device).contiguous()
        if last_step < count:
            for state in self._rollout(batch, states, range(1 - self.lag, 1)):
                states = torch.cat((states, state[:, None]), dim=1)[:, -count:]
        if last_step:
            steps = range(max(1, last_step - count + 1), last_step + 1)
            stored = torch.from_numpy(self.store.read_steps(batch, steps))
            states = torch.cat((states, stored.to(states.device)), dim=1)[:, -count:]
        return states.contiguous()

    def _report(self) -> None:
        elapsed = max(time.monotonic() - self.started, 1e-9)
        rate = self.computed / elapsed
        done = self.before + self.computed
        end = datetime.now(UTC) + timedelta(seconds=(self.total - done) / rate)
        windows = self.layout.windows[: self.written_windows]
        lead = (windows[-1].stop - 1) * self.layout.step_hours if windows else 0
        self.on_progress(Progress(done, self.total, rate, end, lead))
