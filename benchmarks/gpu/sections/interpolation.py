"""Between the grid and the mesh: neighbours gathered, against keys folded to three numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.measuring import Measures, Result, Scale, errors, peaked, poisoned, timed
from mosaic_core.kernels.interpolation import reference
from mosaic_core.kernels.interpolation.neighbours import neighbour_attention

_ROWS = 512


def run(scale: Scale) -> Measures:
    from benchmarks.gpu.networks import model

    network = model(scale).network
    few, all_members = scale.pick((4, 24), (2, 3))
    for name, module in {"to_mesh": network.interp_to_hp, "to_grid": network.interp_to_ll}.items():
        tables = module.neighbors, module.rel_pos
        make = partial(_inputs, scale, module.heads, module.to_o.in_features, *tables)
        plain = scale.compiled(reference.neighbour_attention)
        baseline = f"{name}_straightforward"
        yield baseline, partial(_measured, scale, make, few, plain, baseline)
        ours = partial(neighbour_attention, plan=module.plan(), backend=scale.backend)
        yield f"{name}_ours", partial(_measured, scale, make, all_members, ours, baseline)


def _inputs(
    scale: Scale, heads: int, dim: int, near: Tensor, directions: Tensor, members: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sources = int(near.max()) + 1
    kappa = scale.randn(members, sources, heads, 3)
    return kappa, scale.randn(members, sources, heads, dim // heads), near, directions


def _measured(
    scale: Scale,
    make: Callable[[int], tuple[Tensor, Tensor, Tensor, Tensor]],
    members: int,
    call: Callable[..., Tensor],
    baseline: str,
) -> Result:
    given = make(members)
    kappa, values, near, directions = given
    with torch.no_grad():
        with poisoned():
            found, peak = peaked(lambda: call(*given), scale)
        timing = timed(lambda: call(*given), scale)
        rows = torch.randint(len(near), (_ROWS,), device=near.device)
        exact = reference.neighbour_attention(
            kappa[-1:].double(), values[-1:].double(), near[rows], directions[rows].double()
        )
    written = found.numel() * found.element_size()
    read = (kappa.numel() + values.numel()) * values.element_size()
    return {
        **timing, "members": members, "peak_gb": peak, "baseline": baseline,
        "gb_per_s": (read + written) / timing["ms"] / 1e6,
        **errors(found[-1:, rows], exact),
    }  # fmt: skip
