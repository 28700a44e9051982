"""Learning rate by update."""

from __future__ import annotations

import math

from mosaic_core.training.recipe import Phase


def learning_rate(phase: Phase, update: int) -> float:
    """Linear warm-up, then a half cosine to `final` of the peak; `update` counts from 0."""
    if update < phase.warm_up:
        return phase.learning_rate * (update + 1) / phase.warm_up
    done = (update - phase.warm_up) / max(1, phase.updates - phase.warm_up)
    share = phase.final + (1 - phase.final) * 0.5 * (1 + math.cos(math.pi * done))
    return phase.learning_rate * share
