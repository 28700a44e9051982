"""Tiles of a product of rows with rows of weights: their order, loads and shapes by chip."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor


@triton.jit
def load_tile(
    source, row, column, rows, columns, stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """A tile of a matrix by its descriptor or pointer, zero outside."""
    if DESCRIPTORS:
        tile = source.load([row, column])
    else:
        r, c = row + tl.arange(0, ROWS), column + tl.arange(0, COLUMNS)
        at = source + r[:, None].to(tl.int64) * stride + c[None, :]
        tile = tl.load(at, mask=(r < rows)[:, None] & (c < columns)[None, :], other=0)
    return tile


@triton.jit
def place(tile, runs, columns, GROUP: tl.constexpr):
    """Row and column of a tile by its number: GROUP rows of tiles pass together.

    Tiles at work at one time then share what they load in the second-level cache.
    """
    first = tile // (GROUP * columns) * GROUP
    size = tl.minimum(runs - first, GROUP)
    inside = tile % (GROUP * columns)
    return first + inside % size, inside // size


class Launch(NamedTuple):
    """Shape of a program.

    Attributes:
        tile_m, tile_n, tile_k: rows, weights and features of a tile.
        warps, stages: of the program and of its pipeline of loads.
        descriptors: tiles come by tensor descriptors (TMA), not by pointers.
    """

    tile_m: int
    tile_n: int
    tile_k: int
    warps: int
    stages: int
    descriptors: bool

    def constants(self, dtype: torch.dtype) -> dict[str, Any]:
        """The compile-time arguments that every kernel of tiles takes."""
        return {
            "TILE_M": self.tile_m,
            "TILE_N": self.tile_n,
            "TILE_K": self.tile_k,
            "GROUP": 16,
            "DESCRIPTORS": self.descriptors,
            "EXACT": dtype == torch.float32,
            "INTEGER": dtype == torch.int8,
        }

    def described(self, *tiled: tuple[Any, ...]) -> list[Any]:
        """Arguments of the kernel of (tensor, *shape of a tile): descriptors or the tensors."""
        if not self.descriptors:
            return [tensor for tensor, *_ in tiled]
        return [
            TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), tile)
            for tensor, *tile in tiled
        ]


def has_room(capability: tuple[int, int]) -> bool:
    """Whether big tiles by tensor descriptors fit: H100, H200, B200.

    Consumer chips of compute capability 12 have less shared memory and get what an A100 gets.
    """
    return (9, 0) <= capability < (12, 0)


def programs(x: Tensor) -> int:
    """As many as run at one time, one a multiprocessor."""
    return torch.cuda.get_device_properties(x.device).multi_processor_count if x.is_cuda else 3


def rows_of(x: Tensor) -> Tensor:
    """x (..., features) as a matrix: rows contiguous, each starting at a multiple of 16 bytes."""
    flat = x.reshape(-1, x.shape[-1])
    aligned = flat.data_ptr() % 16 == 0 and flat.stride(0) * flat.itemsize % 16 == 0
    return (
        flat
        if flat.stride(1) == 1 and aligned
        else flat.clone(memory_format=torch.contiguous_format)
    )
