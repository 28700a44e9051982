"""Members of an ensemble in order at every point."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", np.float32, np.float64)


def sort_members(members: NDArray[Number]) -> list[NDArray[Number]]:
    """Rows of `members` (member, point) sorted at every point, lowest first.

    A sorting network of whole-row minima and maxima: for a few dozen members many times
    faster than `np.sort(members, axis=0)`, to which it is equal; fastest with 8,000 points or more,
    as long as all rows stay in a processor's cache.
    """
    rows = list(np.array(members))
    spare = np.empty_like(rows[0])
    for low, high in network(len(rows)):
        a, b = rows[low], rows[high]
        np.minimum(a, b, out=spare)
        np.maximum(a, b, out=b)
        rows[low], spare = spare, a
    return rows


@cache
def network(n: int) -> tuple[tuple[int, int], ...]:
    """Comparators of Batcher's odd-even merge sort of `n` rows (Knuth, TAOCP 3, 5.2.2, M)."""
    pairs = []
    p = 1
    while p < n:
        k = p
        while k >= 1:
            for j in range(k % p, n - k, 2 * k):
                for i in range(min(k, n - j - k)):
                    if (i + j) // (2 * p) == (i + j + k) // (2 * p):
                        pairs.append((i + j, i + j + k))
            k //= 2
        p *= 2
    return tuple(pairs)
