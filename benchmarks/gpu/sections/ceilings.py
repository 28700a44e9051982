"""What the chip gives without us: copies and bare matrix products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.measuring import Measures, Result, Scale, rated, timed

LINEARS = {"768_to_6144": (768, 6144), "3072_to_768": (3072, 768)}
"""The two products of the finest stage's feed-forward layer."""


def run(scale: Scale) -> Measures:
    side, rows = scale.pick(8192, 64), scale.pick(131_072, 64)
    yield "copy", partial(_copy, scale)
    yield f"float16_{side}", partial(_product, scale, _float16, side, side, side)
    for name, (inputs, outputs) in LINEARS.items():
        inputs, outputs = (scale.pick(n, n // 48) for n in (inputs, outputs))
        for kind, make in KINDS.items():
            yield f"{kind}_{name}", partial(_product, scale, make, rows, inputs, outputs)


def _copy(scale: Scale) -> Result:
    source = torch.ones(scale.pick(1 << 32, 1 << 20), dtype=torch.int8, device=scale.device)
    target = torch.empty_like(source)
    timing = timed(lambda: target.copy_(source), scale)
    return {**timing, "gb_per_s": 2 * source.numel() / timing["ms"] / 1e6}


def _product(
    scale: Scale,
    make: Callable[[Scale, int, int, int], Callable[[], Tensor]],
    rows: int,
    inputs: int,
    outputs: int,
) -> Result:
    return rated(timed(make(scale, rows, inputs, outputs), scale), 2 * rows * inputs * outputs)


def _float16(scale: Scale, rows: int, inputs: int, outputs: int) -> Callable[[], Tensor]:
    a, b = scale.randn(rows, inputs), scale.randn(outputs, inputs)
    return lambda: a @ b.T


def _int8(scale: Scale, rows: int, inputs: int, outputs: int) -> Callable[[], Tensor]:
    a, b = (
        torch.randint(-127, 128, (n, inputs), dtype=torch.int8, device=scale.device)
        for n in (rows, outputs)
    )
    return lambda: torch._int_mm(a, b.T)


def _float8(scale: Scale, rows: int, inputs: int, outputs: int) -> Callable[[], Tensor]:
    a, b = (scale.randn(n, inputs, dtype=torch.float8_e4m3fn) for n in (rows, outputs))
    one = torch.ones((), device=scale.device)
    return lambda: torch._scaled_mm(
        a, b.T, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True
    )


KINDS = {"float16": _float16, "int8": _int8, "float8": _float8}
