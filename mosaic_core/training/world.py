"""The processes of a training: one alone, or those that `torchrun` starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from mosaic_core.model.checkpoint import pick_device


@dataclass
class World:
    """This process among those that `torchrun` started."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of `values` over the processes, the same on each."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
            values /= self.size
        return values

    def gathered(self, mapping: dict[str, str]) -> dict[str, str]:
        """The entries of all processes, on each."""
        if self.size == 1:
            return mapping
        parts: list[dict[str, str]] = [{} for _ in range(self.size)]
        dist.all_gather_object(parts, mapping)
        return dict(sorted(item for part in parts for item in part.items()))


@contextmanager
def joined(device: str = "auto") -> Iterator[World]:
    """Join the processes of `torchrun`; alone without it.

    Raises:
        DeviceError: the device asked for is not there.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank, local = int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0"))
    chosen = pick_device(device)
    if chosen.type == "cuda" and size > 1:
        chosen = torch.device("cuda", local)
        torch.cuda.set_device(chosen)
    if size == 1:
        yield World(device=chosen)
        return
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield World(rank, size, chosen)
    finally:
        dist.destroy_process_group()
