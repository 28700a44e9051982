"""Times, peaks and errors, on a CUDA device by its own events and on a CPU by the clock."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from benchmarks.record import peak_gb
from mosaic_core.kernels.dispatch import Backend

T = TypeVar("T")
Result = dict[str, Any]
Measures = Iterator[tuple[str, Callable[[], Result]]]
"""What a section yields: an entry's name and what measures it. Entries are measured one by one;
one that raises is recorded, and the rest go on."""

_L2_BYTES = 256 << 20
"""More than any chip's second-level cache."""


@dataclass(frozen=True)
class Scale:
    """`full` is what the docs show; `tiny` runs the same code on a CPU, for tests."""

    name: Literal["tiny", "full"]
    device: torch.device

    @classmethod
    def named(cls, name: Literal["tiny", "full"]) -> Scale:
        cuda = name == "full" and torch.cuda.is_available()
        return cls(name, torch.device("cuda" if cuda else "cpu"))

    def pick(self, full: T, tiny: T) -> T:
        return full if self.name == "full" else tiny

    @property
    def backend(self) -> Backend | None:
        """Triton wherever it runs, the interpreter included; else what dispatch takes."""
        interpreted = os.environ.get("TRITON_INTERPRET") == "1"
        return "triton" if self.device.type == "cuda" or interpreted else None

    @property
    def types(self) -> tuple[torch.dtype, ...]:
        """16-bit types that are measured: bfloat16 is wrong in Triton's interpreter."""
        if self.device.type == "cuda":
            return (torch.float16, torch.bfloat16)
        return (torch.float16,)

    def randn(self, *shape: int, dtype: torch.dtype = torch.float16, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, device=self.device) * scale).to(dtype)

    def compiled(self, function: T) -> T:
        """`torch.compile` of a function to one graph, or an error.

        At tiny scale the function itself, as C++ takes a minute.
        """
        if self.name == "tiny":
            return function
        for limit in ("recompile_limit", "cache_size_limit"):
            if hasattr(torch._dynamo.config, limit):
                setattr(torch._dynamo.config, limit, 64)
        return torch.compile(function, dynamic=False, fullgraph=True)  # type: ignore[call-overload,no-any-return]


def timed(
    call: Callable[[], object], scale: Scale, *, seconds: float = 1.0, least: int = 5
) -> Result:
    """Median time of a call in ms, caches cold, after two calls that do not count.

    Args:
        seconds: how long to go on, at least `least` calls and at most 50.
    """
    call()
    first = _once(call, scale, None)
    count = min(50, max(least, round(1e3 * seconds / max(first, 1e-3))))
    cold = None
    if scale.device.type == "cuda":
        cold = torch.empty(_L2_BYTES, dtype=torch.int8, device=scale.device)
    times = [_once(call, scale, cold) for _ in range(scale.pick(count, 1))]
    return {
        "ms": statistics.median(times),
        "ms_range": [min(times), max(times)],
        "calls": len(times),
    }


def _once(call: Callable[[], object], scale: Scale, cold: Tensor | None) -> float:
    if cold is not None:
        cold.zero_()
    if scale.device.type != "cuda":
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    call()
    after.record()
    torch.cuda.synchronize()
    return float(before.elapsed_time(after))


def rated(
    timing: Result, operations: float, members: int = 1, *, effective: bool = False
) -> Result:
    """Timing with its rate; operations are exact counts of the whole call, 2 a multiply-add.

    Args:
        effective: the counts are those of the published formulation, of which the call may skip
            some (keys folded, blocks both local and selected read once).
    """
    return {
        **timing,
        "members": members,
        "tflop": operations / 1e12,
        "tflop_per_s": operations / timing["ms"] / 1e9,
        "effective": effective,
    }


def peaked(call: Callable[[], T], scale: Scale) -> tuple[T, float]:
    """Result of a call and the most memory in GB: of the device, or of the process on a CPU."""
    if scale.device.type != "cuda":
        return call(), peak_gb()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    torch.cuda.synchronize()
    return result, torch.cuda.max_memory_allocated() / 1e9


def errors(found: Tensor, exact: Tensor) -> Result:
    """Relative errors: of the largest difference, and in the mean square. NaN stays NaN."""
    exact = exact.double()
    difference = found.double() - exact
    return {
        "max_rel": float(difference.abs().max() / exact.abs().max()),
        "rms_rel": float(difference.square().mean().sqrt() / exact.square().mean().sqrt()),
    }


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """Every tensor that is made without values holds NaN, so that what is not written shows."""
    before = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)
        torch.utils.deterministic.fill_uninitialized_memory = fill


def nothing_left(scale: Scale) -> None:
    """Give the device's unused memory back before the next entry."""
    if scale.device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
