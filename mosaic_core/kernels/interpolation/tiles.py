"""Targets in compact tiles that share the rows of their neighbours.

A point of a tile has most of its neighbours in common with the others of it. A tile therefore lists
the union of the neighbours once, in chunks; each point of the tile finds its own ones there. Seen
from the sources, the same relation says who uses each of them, which the gradients need.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mosaic_core.errors import ConfigurationError

TILE = 64
"""Points of a tile."""

CHUNK = 32
"""Rows of a union that are read at a time."""

NOT_ONE = 255
"""The slot where a point of the tile and a row of the union are no neighbours."""

Indices = NDArray[np.int64]
Points = NDArray[np.floating]


class Tiles(NamedTuple):
    """Points on one side of a relation, tile by tile, with what they meet on the other side.

    Attributes:
        rows: (tile, TILE) int32, the points of each tile; the rest of the last one is -1.
        first: (tile + 1) int32, where the chunks of each tile begin.
        union: (chunk, CHUNK) int32, what the points of the tile meet, ascending, then -1.
        slots: (chunk, TILE, CHUNK) uint8, which neighbour of the target the source is, or NOT_ONE.
    """

    rows: Tensor
    first: Tensor
    union: Tensor
    slots: Tensor


class Plan(NamedTuple):
    """Who meets whom, by tiles of targets and by tiles of sources."""

    targets: Tiles
    sources: Tiles


def plan(neighbours: Indices, sources: Points, targets: Points) -> Plan:
    """Tiles of both sides of the relation.

    A source that a target names several times stands as often in the union.

    Args:
        neighbours: (target, k) indices of sources.
        sources, targets: positions (point, 3); they only decide which points share a tile.

    Raises:
        ConfigurationError: a target has more neighbours than a slot can name.
    """
    k = neighbours.shape[1]
    if k > NOT_ONE:
        raise ConfigurationError(f"{k} neighbours of a point", f"at most {NOT_ONE}", "take fewer")
    target, slot = (a.ravel() for a in np.indices(neighbours.shape))
    source, copy = neighbours.ravel(), _copies(neighbours).ravel()
    return Plan(
        _tiles(target, source, copy, slot, compact_order(targets)),
        _tiles(source, target, copy, slot, compact_order(sources)),
    )


def compact_order(points: Points) -> Indices:
    """Points (point, 3) so ordered that each TILE of them lie together.

    Halves of whole tiles, cut across the longest axis, until a tile is left.
    """

    def cut(part: Indices) -> list[Indices]:
        if len(part) <= TILE:
            return [np.sort(part)]
        axis = np.ptp(points[part], axis=0).argmax()
        part = part[np.argsort(points[part, axis], kind="stable")]
        half = (-(-len(part) // TILE) + 1) // 2 * TILE
        return cut(part[:half]) + cut(part[half:])

    return np.concatenate(cut(np.arange(len(points))))


def _copies(neighbours: Indices) -> Indices:
    """How often a target has named the same source before: (target, k)."""
    order = np.argsort(neighbours, axis=1, kind="stable")
    ordered = np.take_along_axis(neighbours, order, axis=1)
    place = np.broadcast_to(np.arange(neighbours.shape[1]), neighbours.shape)
    same = np.zeros(neighbours.shape, bool)
    same[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    begin = np.maximum.accumulate(np.where(same, 0, place), axis=1)
    copies = np.empty_like(place)
    np.put_along_axis(copies, order, place - begin, axis=1)
    return copies


def _tiles(row: Indices, column: Indices, copy: Indices, slot: Indices, order: Indices) -> Tiles:
    """Entries of the relation by tiles of consecutive rows of `order`."""
    tiles = -(-len(order) // TILE)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    tile, inside = np.divmod(place[row], TILE)
    columns, copies = int(column.max()) + 1, int(copy.max()) + 1
    # A number for each (tile, column, copy) that occurs, ascending by tile.
    met, which = np.unique((tile * columns + column) * copies + copy, return_inverse=True)
    owner = met // (columns * copies)
    count = np.bincount(owner, minlength=tiles)
    first = np.concatenate(([0], np.cumsum(-(-count // CHUNK))))
    before = np.cumsum(count) - count
    at = first[owner] * CHUNK + np.arange(len(met)) - before[owner]
    union = np.full((first[-1], CHUNK), -1, np.int32)
    union.reshape(-1)[at] = met // copies % columns
    slots = np.full((first[-1], TILE, CHUNK), NOT_ONE, np.uint8)
    chunk, offset = np.divmod(at[which], CHUNK)
    slots[chunk, inside, offset] = slot
    rows = np.full((tiles, TILE), -1, np.int32)
    rows.reshape(-1)[: len(order)] = order
    return Tiles(*map(torch.from_numpy, (rows, first.astype(np.int32), union, slots)))
