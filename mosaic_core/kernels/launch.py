"""Launching Triton kernels."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor


def on_device(x: Tensor) -> contextlib.AbstractContextManager[None]:
    """Kernels inside run where x lies; Triton alone takes the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
