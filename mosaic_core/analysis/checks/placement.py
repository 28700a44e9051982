"""Where a pattern lies: the turn, row offset and reflection that fit it to another one best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mosaic_core.analysis.checks.result import Stack

Pair = tuple[Stack, Stack]


@dataclass(frozen=True)
class Fit:
    """The placement that brings two sets of patterns together best."""

    degrees_east: float
    rows_north: int
    reflected: bool
    correlation: float
    as_given: float

    def __str__(self) -> str:
        words = []
        if self.reflected:
            words.append("reflected at the equator")
        if self.degrees_east:
            words.append(f"rotated by {self.degrees_east:g} degrees")
        if self.rows_north:
            words.append(f"shifted by {self.rows_north} rows")
        return " and ".join(words) or "in place"


def best_fit(pairs: Sequence[Pair], weights: Stack, rows: int = 2) -> Fit:
    """Find the placement of the first patterns relative to the second.

    Args:
        pairs: patterns (latitude, longitude) that should go together; their correlations add.
        weights: area (latitude, 1), zero where a row is not to count.
        rows: how far to look north and south.
    """
    columns = pairs[0][0].shape[1]
    patterns = [(_Pattern.of(moved), _Pattern.of(fixed)) for moved, fixed in pairs]
    best: Fit | None = None
    as_given = _correlations(patterns, weights, columns, 0)[0]
    for reflected in (False, True):
        placed = [(a.reflected() if reflected else a, b) for a, b in patterns]
        for offset in range(-rows, rows + 1):
            curve = _correlations(placed, weights, columns, offset)
            at = int(curve.argmax())
            if best is None or curve[at] > best.correlation:
                turn = (at if at <= columns // 2 else at - columns) * 360.0 / columns
                best = Fit(turn, offset, reflected, float(curve[at]), float(as_given))
    assert best is not None
    return best


@dataclass(frozen=True, eq=False)
class _Pattern:
    """Departure from the zonal mean: spectrum and sum of squares of each row."""

    spectrum: NDArray[np.complex128]
    squares: Stack

    @classmethod
    def of(cls, plane: Stack) -> _Pattern:
        departure = plane - plane.mean(axis=1, keepdims=True)
        return cls(np.fft.rfft(departure), (departure**2).sum(axis=1))

    def reflected(self) -> _Pattern:
        return _Pattern(self.spectrum[::-1], self.squares[::-1])


def _correlations(
    patterns: Sequence[tuple[_Pattern, _Pattern]], weights: Stack, columns: int, offset: int
) -> Stack:
    """Mean correlation at every turn, (longitude,), with the first moved `offset` rows south."""
    end = len(weights) - abs(offset)
    a_rows = slice(max(offset, 0), max(offset, 0) + end)
    b_rows = slice(max(-offset, 0), max(-offset, 0) + end)
    w = weights[b_rows, 0]
    total = np.zeros(columns)
    for a, b in patterns:
        product = w @ (a.spectrum[a_rows] * np.conj(b.spectrum[b_rows]))
        scale = float(np.sqrt((w @ a.squares[a_rows]) * (w @ b.squares[b_rows])))
        total += np.fft.irfft(product, columns) / (scale or 1.0)
    return total / len(patterns)
