"""States on their way from the device to the host."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Tensor

_SLOTS = 2
"""Pinned buffers: one is filled by the device while the other is emptied by the host."""


class Outgoing:
    """Puts states into host arrays; from a GPU while the next step is computed.

    A GPU copies into pinned memory on a stream of its own, and a thread lays the values out from
    there, so that the device does not wait for the host's memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._landing: list[Future[None] | None] = [None] * _SLOTS
        self._buffers: list[Tensor | None] = [None] * _SLOTS
        self._next = 0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="outgoing")
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __enter__(self) -> Outgoing:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.settle()
        finally:
            self._pool.shutdown(wait=True)

    def put(self, state: Tensor, into: Tensor) -> None:
        """Copy state (member, longitude, latitude, channel) into (channel, member, lat, lon).

        `into` is filled once `settle` returns.
        """
        turned = state.permute(3, 0, 2, 1)
        if self._stream is None:
            into.copy_(turned)
            return
        slot, self._next = self._next, (self._next + 1) % _SLOTS
        landing = self._landing[slot]
        if landing is not None:
            landing.result()
        buffer = self._buffers[slot]
        if buffer is None or buffer.shape != turned.shape:
            buffer = torch.empty(turned.shape, dtype=turned.dtype, pin_memory=True)
            self._buffers[slot] = buffer
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            buffer.copy_(turned.contiguous(), non_blocking=True)
            state.record_stream(self._stream)
            copied = torch.cuda.Event(blocking=True)
            copied.record(self._stream)
        self._landing[slot] = self._pool.submit(_land, copied, buffer, into)

    def settle(self) -> None:
        """Wait until everything that was put is there."""
        for slot, landing in enumerate(self._landing):
            if landing is not None:
                landing.result()
                self._landing[slot] = None


def _land(copied: torch.cuda.Event, buffer: Tensor, into: Tensor) -> None:
    copied.synchronize()
    into.copy_(buffer)
