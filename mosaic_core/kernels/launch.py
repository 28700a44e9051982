"""Launching Triton kernels."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor


def on_device(x: Tensor) -> contextlib.AbstractContextManager[None]:
    """Kernels inside run where x lies; Triton alone takes the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def capability(x: Tensor, interpreted: tuple[int, int]) -> tuple[int, int]:
    """Compute capability of the chip where x lies; `interpreted` where a CPU stands in for it."""
    return torch.cuda.get_device_capability(x.device) if x.is_cuda else interpreted


def aligned(x: Tensor) -> Tensor:
    """x with rows (its last axis) that 16-byte copies can fetch, multiples of 8 elements apart.

    It is x itself, or a copy.
    """
    apart = not any(stride % 8 for stride in x.stride()[:-1])
    good = x.stride(-1) == 1 and apart and x.data_ptr() % 16 == 0
    return x if good else x.clone(memory_format=torch.contiguous_format)
