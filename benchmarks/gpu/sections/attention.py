"""Local and selected branch under their gates, one layer of the finest stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.gpu.cases import STAGE, TINY, Case, case, exact, flex, grouped, separate
from benchmarks.gpu.measuring import Measures, Result, Scale, errors, peaked, poisoned, rated, timed

BASELINE = "separate"


def run(scale: Scale) -> Measures:
    """Baselines and ours at a few members, lists of every kind; then the kernels at all members."""
    few, all_members = scale.pick((4, 24), (2, 3))
    stage = scale.pick(STAGE, TINY)
    local = stage.local // stage.block
    yield BASELINE, lambda: _measured(scale, case(scale, few), separate)
    yield "ours", partial(_made, scale, partial(case, scale, few))
    yield "dense_one_member", partial(_dense, scale)
    for overlap in (local // 2, local):
        make = partial(case, scale, few, overlap=overlap)
        yield f"ours_overlap_{overlap}", partial(_made, scale, make, effective=True)
    yield "ours_clustered", partial(_made, scale, partial(case, scale, few, spread="clustered"))
    for dtype in scale.types[1:]:
        name = str(dtype).removeprefix("torch.")
        yield f"ours_{name}", partial(_made, scale, partial(case, scale, few, dtype=dtype))
    yield f"ours_{all_members}", partial(_made, scale, partial(case, scale, all_members))
    yield "select", partial(_select, scale, all_members)
    yield "flex", partial(_flex, scale, few)
    yield f"flex_{all_members}", partial(_flex, scale, all_members)


def _select(scale: Scale, members: int) -> Result:
    """Lists from scores, joined with the local groups: what `ours` is given."""
    from mosaic_core.kernels.attention.lists import select

    stage = scale.pick(STAGE, TINY)
    blocks = stage.tokens // stage.block
    scores = scale.randn(members, blocks, stage.kv_heads, blocks, dtype=torch.float32)
    local = stage.local // stage.block
    timing = timed(lambda: select(scores, stage.selected, local, scale.backend), scale)
    return {**timing, "members": members}


def ours(scale: Scale, given: Case) -> Callable[[Case], Tensor]:
    """The call, its lists joined before."""
    from mosaic_core.kernels.attention.gated import gated_attention
    from mosaic_core.kernels.attention.lists import joint_lists

    stage = given.stage
    joint = joint_lists(given.lists, stage.local // stage.block)

    def call(given: Case) -> Tensor:
        return gated_attention(
            given.q, given.k, given.v, given.logits, given.compressed, joint,
            block_size=stage.block, local=stage.local, backend=scale.backend,
        )  # fmt: skip

    return call


def _made(scale: Scale, make: Callable[[], Case], effective: bool = False) -> Result:
    given = make()
    return _measured(scale, given, ours(scale, given), effective)


def _flex(scale: Scale, members: int) -> Result:
    from torch.nn.attention.flex_attention import flex_attention

    given = case(scale, members)
    call = flex(given, scale.compiled(flex_attention))
    return _measured(scale, given, lambda _: call())


def _dense(scale: Scale) -> Result:
    """Every token to every token: what the lists save."""
    given = case(scale, 1)
    stage = given.stage
    timing = timed(lambda: grouped(given.q, given.k, given.v), scale)
    return {**rated(timing, 4 * stage.tokens**2 * stage.dim), "baseline": BASELINE}


def _measured(
    scale: Scale, given: Case, attend: Callable[[Case], Tensor], effective: bool = False
) -> Result:
    """With `effective`, blocks that are both local and selected count twice, as if read twice."""
    members = len(given.q)
    with torch.no_grad():
        with poisoned():
            found, peak = peaked(lambda: attend(given), scale)
        timing = timed(lambda: attend(given), scale)
    result = rated(timing, given.operations, members, effective=effective)
    return {**result, "peak_gb": peak, "baseline": BASELINE, **at_random_blocks(given, found)}


def at_random_blocks(given: Case, found: Tensor, count: int = 8) -> Result:
    """Errors of some query blocks against float64."""
    members, blocks = given.lists.shape[:2]
    generator = torch.Generator().manual_seed(1)
    pairs = [
        (int(torch.randint(members, (), generator=generator)), int(block))
        for block in torch.randperm(blocks, generator=generator)[:count]
    ]
    size = given.stage.block
    ours = torch.stack([found[m, b * size : (b + 1) * size] for m, b in pairs])
    return errors(ours, torch.stack([exact(given, m, b) for m, b in pairs]))
