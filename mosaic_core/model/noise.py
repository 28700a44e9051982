"""Noise keyed by identity: seed, cycle, member and step, never by the order of calls."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mosaic_core.cycle import Cycle


def member_noise(seed: int, cycle: Cycle, member: int, step: int, size: int) -> NDArray[np.float32]:
    """Standard normal numbers of one member and step, (size,), float32.

    Philox4x64 (Salmon et al. 2011) with the key from (seed, cycle) and the counter from
    (member, step), turned normal by Box and Muller (1958) in float64. Only the raw bits of numpy's
    generator are used: their stream is guaranteed, that of its normal variates is not.
    """
    digest = hashlib.sha256(f"mosaic-noise-1|{seed}|{cycle.id}".encode()).digest()
    key = np.frombuffer(digest[:16], "<u8")
    bits = np.random.Philox(key=key, counter=[0, 0, step, member])
    pairs = (size + 1) // 2
    raw = np.asarray(bits.random_raw(2 * pairs), np.uint64) >> np.uint64(11)
    uniform = (raw.astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2.0 * np.log(uniform[:pairs]))
    angle = 2.0 * np.pi * uniform[pairs:]
    normal = np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))
    return normal[:size].astype(np.float32)


def batch_noise(
    seed: int, cycle: Cycle, members: Sequence[int], step: int, size: int
) -> NDArray[np.float32]:
    """Noise of several members at one step, (member, size), float32."""
    return np.stack([member_noise(seed, cycle, member, step, size) for member in members])
