"""One step of one member against float64, its lists of blocks its own and those of float64."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.gpu.measuring import Measures, Result, Scale, errors
from benchmarks.gpu.networks import Step, inputs, model
from benchmarks.gpu.sections.step import ours
from mosaic_core.kernels.attention.lists import JointLists, joint_lists, top_blocks
from mosaic_core.kernels.dispatch import forced_backend
from mosaic_core.model.attention import BlockSparseAttention
from mosaic_core.model.config import StageConfig
from mosaic_core.model.fused import network as fused

Lists = list[tuple[StageConfig, Tensor]]
"""Of each block in the order of the forward pass: its stage and what it selected."""


def run(scale: Scale) -> Measures:
    loaded = model(scale)
    given = inputs(scale, loaded.config, 1)
    exact, lists = _exact(loaded.network, given)
    yield "overlap", lambda: {"blocks_by_stage": overlap(lists)}

    def cast(*given: Any) -> Tensor:
        with torch.no_grad(), torch.autocast(scale.device.type, torch.float16):
            return loaded.network(*given).float()

    ways: dict[str, tuple[Step, Callable[[Lists, bool], Any]]] = {
        "modules_float16": (cast, _in_modules),
        "ours_float16": (ours(scale, loaded.network, "float16"), _in_fused),
        "ours_int8": (ours(scale, loaded.network, "int8"), _in_fused),
    }
    for name, (step, chosen) in ways.items():
        for kind, forced in {"lists_forced": True, "lists_free": False}.items():
            yield f"{name}_{kind}", lambda: _measured(step, given, exact, chosen(lists, forced))  # noqa: B023


def _exact(network: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, Lists]:
    lists: Lists = []
    select = BlockSparseAttention.select

    def recorded(self: BlockSparseAttention, q: Tensor, k: Tensor) -> Tensor:
        found = select(self, q, k)
        lists.append((self.stage, found))
        return found

    double = copy.deepcopy(network).double()
    with (
        torch.no_grad(),
        forced_backend("blocked"),
        mock.patch.object(BlockSparseAttention, "select", recorded),
    ):
        out = double(*(x.double() for x in given))
    return out, lists


def overlap(lists: Lists) -> dict[str, float]:
    """Mean count of selected blocks in the query's own local group; random weights, not trained."""
    found: dict[str, list[float]] = {}
    for stage, selected in lists:
        local = stage.local // stage.block
        own = torch.arange(selected.shape[1], device=selected.device) // local
        inside = selected // local == own[:, None, None]
        found.setdefault(f"nside {stage.nside}", []).append(float(inside.sum(-1).float().mean()))
    return {stage: sum(counts) / len(counts) for stage, counts in found.items()}


class _Chosen:
    """Counts lists that differ from those of float64, and puts those in their place if asked."""

    def __init__(self, lists: Lists, forced: bool) -> None:
        self.rest = iter(lists)
        self.forced = forced
        self.different: list[float] = []

    def __call__(self, found: Tensor) -> Tensor:
        _, exact = next(self.rest)
        same = (found.sort(-1).values == exact.sort(-1).values).all(-1)
        self.different.append(float((~same).float().mean()))
        return exact if self.forced else found


@contextlib.contextmanager
def _in_modules(lists: Lists, forced: bool) -> Iterator[_Chosen]:
    chosen, select = _Chosen(lists, forced), BlockSparseAttention.select

    def replaced(self: BlockSparseAttention, q: Tensor, k: Tensor) -> Tensor:
        return chosen(select(self, q, k))

    with mock.patch.object(BlockSparseAttention, "select", replaced):
        yield chosen


@contextlib.contextmanager
def _in_fused(lists: Lists, forced: bool) -> Iterator[_Chosen]:
    chosen = _Chosen(lists, forced)

    def replaced(scores: Tensor, count: int, local_blocks: int) -> JointLists:
        return joint_lists(chosen(top_blocks(scores, count)), local_blocks)

    with mock.patch.object(fused, "select", replaced):
        yield chosen


def _measured(
    step: Step,
    given: tuple[Tensor, Tensor, Tensor],
    exact: Tensor,
    context: contextlib.AbstractContextManager[_Chosen],
) -> Result:
    with context as chosen:
        found = step(*given)
    shares = chosen.different
    return {**errors(found, exact), "lists_different": sum(shares) / len(shares)}
