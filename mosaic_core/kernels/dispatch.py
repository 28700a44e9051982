"""Which backend runs an operation, and why another one does not."""

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
_logged: set[tuple[str, str, str]] = set()


@contextlib.contextmanager
def forced_backend(backend: Backend | None) -> Iterator[None]:
    """Use `backend` for every operation inside the block; one that declines is an error."""
    token = _forced.set(backend)
    try:
        yield
    finally:
        _forced.reset(token)


def kept_in_recomputation() -> tuple[
    contextlib.AbstractContextManager[None], contextlib.AbstractContextManager[None]
]:
    """For `context_fn` of torch's checkpoint: what is computed again takes the same backend.

    A backward pass on a GPU runs in a thread of its own, which knows no context variables.
    """
    return contextlib.nullcontext(), forced_backend(_forced.get())


def forced() -> Backend | None:
    """The backend that the enclosing `forced_backend` names."""
    return _forced.get()


def declined(backend: Backend, x: Tensor, limits: str | None = None) -> str | None:
    """Why `backend` does not run an operation on `x`; None if it does.

    Args:
        limits: why the operation's own Triton kernel does not take these shapes, None if it does.
    """
    if backend != "triton":
        return None
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed (pip install 'mosaic-forecast[gpu]')"
    if x.device.type != "cuda" and not interpreted:
        return f"triton needs a CUDA device, the tensors are on {x.device.type}"
    if x.device.type == "cuda" and torch.cuda.get_device_capability(x.device) < (8, 0):
        return "the kernels need compute capability 8.0 (A100) or newer"
    if x.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        return f"no triton kernel for {x.dtype}"
    if interpreted and x.dtype == torch.bfloat16:
        return "triton's interpreter multiplies bfloat16 wrongly"
    return limits


def slow_in_float32(x: Tensor) -> str | None:
    """Why kernels that multiply matrices are not taken for float32 unless asked for by name."""
    if x.dtype == torch.float32:
        return "float32 does not use the tensor cores: torch's own products are faster"
    return None


def head_width(width: int) -> str | None:
    """Why Triton kernels do not take heads of this width, None if they do."""
    if width & (width - 1) or not 16 <= width <= 128:
        return f"head width {width} is not a power of two from 16 to 128"
    return None


def choose(
    operation: str,
    x: Tensor,
    backend: Backend | None = None,
    limits: str | None = None,
    slow: str | None = None,
) -> Backend:
    """The backend asked for, the one forced, or the first that does not decline.

    Args:
        operation: as in messages, e.g. "gated attention".
        x: an input of the operation: its device and type decide.
        limits: see `declined`.
        slow: why Triton's kernel is not worth its while here; it runs when it is asked for by name.

    Raises:
        DeviceError: the one asked for or forced declines; its reason is given.
    """
    wanted = backend or _forced.get()
    if wanted is not None:
        reason = declined(wanted, x, limits)
        if reason is not None:
            raise DeviceError(
                f"{wanted!r} cannot run the {operation}: {reason}",
                "a backend that supports these tensors",
                "set `kernels: auto`, or provide what is missing",
            )
        return wanted
    for candidate in get_args(Backend):
        reason = declined(candidate, x, limits)
        if candidate == "triton" and x.device.type != "cuda":
            reason = reason or "triton's interpreter runs only when asked for by name"
        if candidate == "triton":
            reason = reason or slow
        if reason is None:
            return candidate
        if (operation, candidate, reason) not in _logged:
            _logged.add((operation, candidate, reason))
            _log.info("%s: backend %s declined: %s", operation, candidate, reason)
    raise AssertionError("the blocked backend never declines")


def require(backend: Backend, device: torch.device) -> None:
    """Refuse a host on which `backend` cannot run, so that production never falls back.

    Raises:
        DeviceError: it cannot; the reason is given.
    """
    reason = declined(backend, torch.zeros(1, dtype=torch.float16, device=device))
    if reason is not None:
        raise DeviceError(
            f"this profile requires the {backend!r} kernels: {reason}",
            f"a host on which {backend!r} runs",
            "provide what is missing, or drop `require:` from the profile",
        )
