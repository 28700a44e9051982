"""Every kernel against its float64 twin on random inputs, outputs poisoned first."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from benchmarks.gpu.cases import case
from benchmarks.gpu.measuring import Measures, Result, Scale, errors, poisoned
from benchmarks.gpu.sections.attention import at_random_blocks, ours

LIMITS = {torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2.5e-2}
"""Largest difference over the largest value."""

Pairs = Iterator[tuple[Tensor, Tensor]]


_COMPILERS = 8
_COMPILE_SECONDS = 90.0


def run(scale: Scale) -> Measures:
    """16-bit types first: production runs in them. On a GPU, all is compiled before."""
    if scale.device.type == "cuda":
        yield "compiled", partial(compile_together, scale, _COMPILERS, _COMPILE_SECONDS)
    yield from checks(scale)


def compile_together(scale: Scale, processes: int, seconds: float) -> Result:
    """Run every check once in some processes, which leave the kernels in Triton's cache.

    Raises:
        multiprocessing.TimeoutError: not done within `seconds`; what hangs is ended.
    """
    begin = time.perf_counter()
    names = [(scale, name) for name, _ in checks(scale)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        passed = pool.starmap_async(_passes, names, chunksize=1).get(seconds)
    return {"seconds": time.perf_counter() - begin, "checks": len(names), "ran": sum(passed)}


def _passes(scale: Scale, name: str) -> bool:
    """Whether a check runs to its end; one that fails says why when it is measured."""
    with contextlib.suppress(Exception):
        dict(checks(scale))[name]()
        return True
    return False


def checks(scale: Scale) -> Measures:
    for dtype in (*scale.types, torch.float32):
        name = str(dtype).removeprefix("torch.")
        for check in KERNELS:
            yield f"{check.__name__}_{name}", partial(_checked, scale, dtype, check)
        for overlap in scale.pick((0, 4, 8), (0, 2, 4)):
            measure = partial(_gated, scale, dtype, overlap)
            yield f"gated_attention_overlap_{overlap}_{name}", measure
    yield "int8", partial(_checked, scale, torch.float32, int8)


def _checked(
    scale: Scale, dtype: torch.dtype, check: Callable[[Scale, torch.dtype], Pairs]
) -> Result:
    """The worst of several outputs."""
    with poisoned():
        found = [errors(a, b) for a, b in check(scale, dtype)]
    return _judged({key: _largest([e[key] for e in found]) for key in found[0]}, dtype)


def _gated(scale: Scale, dtype: torch.dtype, overlap: int) -> Result:
    given = case(scale, scale.pick(3, 2), overlap=overlap, dtype=dtype)
    with torch.no_grad(), poisoned():
        found = ours(scale, given)(given)
    return _judged(at_random_blocks(given, found), dtype)


def _judged(result: Result, dtype: torch.dtype) -> Result:
    limit = LIMITS[dtype]
    return {**result, "limit": limit, "right": result["max_rel"] <= limit}


def _largest(values: Sequence[float]) -> float:
    """NaN if any is."""
    return float(torch.tensor(values).max())


def selected_attention(scale: Scale, dtype: torch.dtype) -> Pairs:
    from mosaic_core.kernels.attention.sparse import block_sparse_attention

    heads, kv_heads, width, block, blocks = scale.pick((12, 3, 64, 128, 16), (6, 2, 16, 16, 6))
    q = scale.randn(3, block * blocks, heads, width, dtype=dtype)
    k, v = (scale.randn(3, block * blocks, kv_heads, width, dtype=dtype) for _ in "kv")
    lists = torch.rand(3, blocks, kv_heads, blocks, device=scale.device).argsort(-1)[..., :5]
    with torch.no_grad():
        found = block_sparse_attention(q, k, v, lists, block_size=block, backend=scale.backend)
    exact = (x.double() for x in (q, k, v))
    yield found, block_sparse_attention(*exact, lists, block_size=block, backend="reference")


def neighbours(scale: Scale, dtype: torch.dtype) -> Pairs:
    from mosaic_core.kernels.interpolation.neighbours import neighbour_attention
    from mosaic_core.kernels.interpolation.tiles import Plan, Tiles, plan

    sources, targets, heads, width = scale.pick((3001, 2003, 12, 64), (51, 70, 2, 16))
    kappa = scale.randn(3, sources, heads, 3, dtype=dtype)
    values = scale.randn(3, sources, heads, width, dtype=dtype)
    points = [np.random.default_rng(n).standard_normal((n, 3)) for n in (sources, targets)]
    sphere = [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in points]
    table = cKDTree(sphere[0]).query(sphere[1], k=20)[1].astype(np.int64)
    tiles = Plan(*(Tiles(*(t.to(scale.device) for t in side)) for side in plan(table, *sphere)))
    near = torch.from_numpy(table).to(scale.device)
    chords = scale.randn(targets, 20, 3, dtype=torch.float32)
    with torch.no_grad():
        found = neighbour_attention(kappa, values, near, chords, tiles, backend=scale.backend)
    exact = (x.double() for x in (kappa, values))
    yield found, neighbour_attention(*exact, near, chords.double(), backend="reference")


def feed_forward(scale: Scale, dtype: torch.dtype) -> Pairs:
    from mosaic_core.kernels.feed_forward.swiglu import swiglu

    tokens, dim = scale.pick((1027, 768), (37, 32))
    x, w13 = scale.randn(3, tokens, dim, dtype=dtype), _weight(scale, 8 * dim, dim, dtype)
    factor = torch.rand(3, tokens, device=scale.device) + 0.5
    for shift in (None, scale.randn(3, 4 * dim, dtype=dtype)):
        exact = [y if y is None else y.double() for y in (x, factor, w13, shift)]
        with torch.no_grad():
            found = swiglu(x, factor, w13, shift, backend=scale.backend)
            yield found, swiglu(*exact, backend="reference")  # type: ignore[arg-type]


def projections(scale: Scale, dtype: torch.dtype) -> Pairs:
    from mosaic_core.kernels.projections.rms import inverse_rms
    from mosaic_core.kernels.projections.rotary import rotate_and_average

    heads, kv_heads, width, block, blocks = scale.pick((12, 3, 64, 128, 9), (6, 2, 16, 16, 3))
    columns = (heads + 2 * kv_heads) * width + 3 * heads
    p = scale.randn(3, block * blocks, columns + -columns % 8, dtype=dtype)
    exact = p.double()
    angle = torch.rand(block * blocks, width // 2, device=scale.device) * 6.28
    rotary = torch.stack((angle.cos(), angle.sin()), -1)
    factor = inverse_rms(p, backend=scale.backend)
    yield factor, inverse_rms(exact, backend="reference")
    sizes = {"heads": heads, "kv_heads": kv_heads, "block_size": block}
    means = rotate_and_average(p, factor, rotary, **sizes, backend=scale.backend)
    twins = rotate_and_average(
        exact, factor.double(), rotary.double(), **sizes, backend="reference"
    )
    yield p, exact
    yield from zip(means, twins, strict=True)


def gradients(scale: Scale, dtype: torch.dtype) -> Pairs:
    """Of gated attention and of the feed-forward layer, against autograd in float64."""
    from mosaic_core.kernels.attention.gated import gated_attention
    from mosaic_core.kernels.feed_forward.swiglu import swiglu

    heads, kv_heads, width, block, blocks = scale.pick((12, 3, 64, 128, 16), (4, 2, 16, 16, 6))
    shapes = [(3, block * blocks, h, width) for h in (heads, kv_heads, kv_heads)]
    shapes += [(3, block * blocks, heads, 3), (3, blocks, heads, width)]
    lists = torch.rand(3, blocks, kv_heads, blocks, device=scale.device).argsort(-1)[..., :4]
    attend = partial(gated_attention, lists=lists, block_size=block, local=2 * block)
    yield from _gradients(scale, dtype, attend, [scale.randn(*s, dtype=dtype) for s in shapes])
    tokens, dim = scale.pick((1027, 768), (37, 32))
    x, shift = (scale.randn(*s, dtype=dtype) for s in ((3, tokens, dim), (3, 4 * dim)))

    def gate(x: Tensor, w13: Tensor, shift: Tensor, *, backend: str | None) -> Tensor:
        return swiglu(x, None, w13, shift, backend=backend)  # type: ignore[arg-type]

    yield from _gradients(scale, dtype, gate, [x, _weight(scale, 8 * dim, dim, dtype), shift])


def _gradients(
    scale: Scale, dtype: torch.dtype, call: Callable[..., Tensor], given: list[Tensor]
) -> Pairs:
    own = [x.clone().requires_grad_() for x in given]
    out = call(*own, backend=scale.backend)
    toward = torch.randn_like(out)
    exact = [x.double().requires_grad_() for x in given]
    twin = call(*exact, backend="reference")
    slopes = torch.autograd.grad(out, own, toward)
    yield from zip(slopes, torch.autograd.grad(twin, exact, toward.double()), strict=True)


def int8(scale: Scale, dtype: torch.dtype) -> Pairs:
    """The kernels against exact products of the same integers."""
    from mosaic_core.kernels.projections.int8 import int8_linear, quantise_rows

    rows, inputs, outputs = scale.pick((1027, 768, 1192), (37, 32, 48))
    x, weight = scale.randn(rows, inputs), _weight(scale, outputs, inputs, torch.float16)
    (xq, xs), (wq, ws) = (quantise_rows(y, backend=scale.backend) for y in (x, weight))
    exact = (xq.double() * xs.double()[:, None]) @ (wq.double() * ws.double()[:, None]).T
    yield int8_linear(xq, xs, wq, ws, dtype=torch.float32, backend=scale.backend), exact


def _weight(scale: Scale, outputs: int, inputs: int, dtype: torch.dtype) -> Tensor:
    return scale.randn(outputs, inputs, dtype=dtype, scale=inputs**-0.5)


KERNELS = (selected_attention, neighbours, feed_forward, projections, gradients)
