"""What scores need of an ensemble at every point, in one pass over its members."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mosaic_core.sorting import sort_members

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

_POINTS: Final = 8192
"""Points of a block: all its members stay in a processor's cache from pass to pass."""


@dataclass(frozen=True, eq=False)
class Members:
    """Of M members x and truth y at every point, each (..., latitude, longitude).

    Attributes:
        error: mean of the members less truth.
        variance: of the members, with M - 1; 0 of one member.
        crps: E|x - y| - E|x - x'| / 2, the second mean over pairs of different members, unbiased in
            M (Ferro 2014); with one member the absolute error.
        below: members that are less than truth.
        equal: members that are truth.
        count: M.
    """

    error: Array
    variance: Array
    crps: Array
    below: Counts
    equal: Counts
    count: int

    @classmethod
    def of(cls, members: NDArray[Any], truth: NDArray[Any]) -> Members:
        """From members (number, ..., latitude, longitude), float32 or float64, and truth (...).

        Where truth is NaN the fields are, and the counts are 0.
        """
        count, shape = len(members), truth.shape
        made: dict[str, NDArray[Any]] = {
            **{name: np.empty(shape) for name in ("error", "variance", "crps")},
            **{name: np.empty(shape, np.int64) for name in ("below", "equal")},
        }
        flat = {name: array.reshape(-1) for name, array in made.items()}
        points = np.asarray(truth, np.float64).reshape(-1)
        each = members.reshape(count, -1)
        for block in _blocks(points.size):
            for name, values in _of_block(each[:, block], points[block]).items():
                flat[name][block] = values
        return cls(**made, count=count)


def _blocks(size: int) -> Iterator[slice]:
    for start in range(0, size, _POINTS):
        yield slice(start, min(start + _POINTS, size))


def _of_block(members: NDArray[Any], truth: Array) -> dict[str, NDArray[Any]]:
    """Members (number, point) are sorted as they are stored; sums are in float64."""
    count = len(members)
    errors = sort_members(members) - truth
    even = np.full(count, 1.0 / count)
    mean = even @ errors
    found: dict[str, NDArray[Any]] = {
        "error": mean,
        "below": _how_many(errors < 0),
        "equal": _how_many(errors == 0),
    }
    ranks = 2.0 * np.arange(1, count + 1) - count - 1
    pairs = ranks @ errors / (count * max(count - 1, 1))  # half the mean distance of two members
    deviations = errors - mean
    found["variance"] = np.einsum("np,np->p", deviations, deviations) / max(count - 1, 1)
    found["crps"] = even @ np.abs(errors, out=errors) - pairs
    return found


def _how_many(happens: NDArray[np.bool_]) -> NDArray[np.integer[Any]]:
    """Members, at every point; a sum of bytes, while they hold it, is the fastest."""
    total = np.dtype(np.uint8 if len(happens) < 256 else np.int64)
    return np.asarray(happens.view(np.uint8).sum(axis=0, dtype=total))
