"""Relative differences, as the golden data's tolerances are stated."""

from __future__ import annotations

from typing import Any

import numpy as np


def max_rel(found: Any, expected: Any) -> float:
    """max|a - b| / max|b|."""
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    return float(np.abs(a - b).max() / np.abs(b).max())


def rms_rel(found: Any, expected: Any) -> float:
    """rms(a - b) / rms(b)."""
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))
