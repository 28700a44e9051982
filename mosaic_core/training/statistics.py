"""Normalisation and change statistics of an archive, and its static fields."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mosaic_core.errors import ConfigurationError
from mosaic_core.training.log import written
from mosaic_core.training.objective import Statistics
from mosaic_core.training.windows import Windows


def measure(windows: Windows, samples: int, step: timedelta) -> Statistics:
    """Statistics over `samples` times spread evenly over the windows' period.

    Raises:
        ConfigurationError: a channel that never varies, or no time that can be read.
    """
    archive = windows.targets
    weights = np.asarray(archive.grid.latitude_weights, np.float64)
    weights = weights / weights.sum() / archive.grid.nlon
    sums: NDArray[np.float64] = np.zeros((4, len(archive.channels)))
    count = 0
    for before, after in windows.changes(samples, step):
        values, change = before.astype(np.float64), after.astype(np.float64) - before
        for row, field in enumerate((values, values**2, change, change**2)):
            sums[row] += np.einsum("xyc,y->c", field, weights)
        count += 1
    if not count:
        raise ConfigurationError(f"no time of {archive.url} can be read", "at least one")
    mean, square, change, change_square = sums / count
    std = np.sqrt(np.maximum(square - mean**2, 0))
    change_std = np.sqrt(np.maximum(change_square - change**2, 0))
    constant = [
        str(c) for c, a, b in zip(archive.channels, std, change_std, strict=True) if min(a, b) <= 0
    ]
    if constant:
        raise ConfigurationError(
            f"{', '.join(constant)} of {archive.url} never changes", "channels that vary"
        )
    return Statistics(*(torch.from_numpy(a.astype(np.float32)) for a in (mean, std, change_std)))


def write(path: Path, statistics: Statistics) -> None:
    partial = path.with_name(f"{path.name}.partial.npz")
    with written(path):
        np.savez(
            partial,
            state_mean=statistics.mean.numpy(),
            state_std=statistics.std.numpy(),
            change_std=statistics.change.numpy(),
        )
        partial.replace(path)


def read(path: Path) -> Statistics:
    with np.load(path, allow_pickle=False) as stored:
        return Statistics(
            *(torch.from_numpy(stored[n]) for n in ("state_mean", "state_std", "change_std"))
        )
