"""Which backend runs, and why another one does not."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal, get_args

import torch
from torch import Tensor

from mosaic_core.errors import DeviceError

Backend = Literal["triton", "blocked", "reference"]

_log = logging.getLogger(__name__)
_forced: ContextVar[Backend | None] = ContextVar("forced_backend", default=None)
_logged: set[tuple[str, str]] = set()


@contextlib.contextmanager
def forced_backend(backend: Backend | None) -> Iterator[None]:
    """Use `backend` for every attention inside the block; one that declines is an error."""
    token = _forced.set(backend)
    try:
        yield
    finally:
        _forced.reset(token)


def forced() -> Backend | None:
    """The backend that the enclosing `forced_backend` names."""
    return _forced.get()


def declined(backend: Backend, q: Tensor, block_size: int) -> str | None:
    """Why `backend` does not run for `q` (batch, token, head, width); None if it does."""
    if backend != "triton":
        return None
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install 'mosaic-forecast[gpu]')"
    if q.device.type != "cuda" and not interpreted:
        return f"triton needs a CUDA device, the tensors are on {q.device.type}"
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"no triton kernel for {q.dtype}"
    if interpreted and q.dtype == torch.bfloat16:
        return "triton's interpreter multiplies bfloat16 wrongly"
    width = q.shape[-1]
    if width & (width - 1) or not 16 <= width <= 128:
        return f"head width {width} is not a power of two from 16 to 128"
    if torch.is_grad_enabled() and q.requires_grad:
        return "the triton kernel has no backward yet"
    if block_size < 16:
        return f"blocks of {block_size} tokens are under 16"
    return None


def choose(q: Tensor, block_size: int, backend: Backend | None = None) -> Backend:
    """The backend asked for, the one forced, or the first that does not decline.

    Raises:
        DeviceError: the one asked for or forced declines; its reason is given.
    """
    wanted = backend or _forced.get()
    if wanted is not None:
        reason = declined(wanted, q, block_size)
        if reason is not None:
            raise DeviceError(
                f"attention backend {wanted!r} cannot run: {reason}",
                "a backend that supports these tensors",
                "set `kernels: auto`, or provide what is missing",
            )
        return wanted
    for candidate in get_args(Backend):
        reason = declined(candidate, q, block_size)
        if candidate == "triton" and q.device.type == "cpu":
            reason = reason or "triton's interpreter runs only when asked for by name"
        if reason is None:
            return candidate
        if (candidate, reason) not in _logged:
            _logged.add((candidate, reason))
            _log.info("attention backend %s declined: %s", candidate, reason)
    raise AssertionError("the blocked backend never declines")


def require(backend: Backend, device: torch.device) -> None:
    """Refuse a host on which `backend` cannot run, so that production never falls back.

    Raises:
        DeviceError: it cannot; the reason is given.
    """
    probe = torch.zeros(1, 128, 1, 64, dtype=torch.float16, device=device)
    reason = declined(backend, probe, 128)
    if reason is not None:
        raise DeviceError(
            f"this profile requires the {backend!r} kernels: {reason}",
            f"a host on which {backend!r} runs",
            "provide what is missing, or drop `require:` from the profile",
        )
