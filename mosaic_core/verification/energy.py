"""Kinetic-energy spectra of members, of their mean and of truth, and their ratio by band.

Members should have the energy of the atmosphere at every scale: less is damping, a bump at the end
is aliasing. Their mean should have less, the more so the less is predictable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mosaic_core.spectral import SphericalHarmonics

Array = NDArray[np.float64]
Band = tuple[int, int]

BANDS: Final[tuple[Band, ...]] = ((1, 4), (5, 10), (11, 20), (21, 40), (41, 80), (81, 160))
"""Total wavenumbers, both ends included: planetary, large, synoptic, and three smaller scales."""


@dataclass(frozen=True, eq=False)
class Energy:
    """Kinetic energy by total wavenumber, m2 s-2, (..., l).

    Attributes:
        members: mean over the members of the energy of each.
        mean: energy of the ensemble mean.
        truth: energy of what came true.
    """

    members: Array
    mean: Array
    truth: Array

    @classmethod
    def of(
        cls,
        members: tuple[Array, Array],
        truth: tuple[Array, Array],
        harmonics: SphericalHarmonics,
    ) -> Energy:
        """From winds (u, v): members (number, ..., latitude, longitude), truth without number."""
        each = harmonics.vorticity_divergence(*members)
        return cls(
            harmonics.kinetic_energy(*each).mean(0),
            harmonics.kinetic_energy(each[0].mean(0), each[1].mean(0)),
            harmonics.kinetic_energy(*harmonics.vorticity_divergence(*truth)),
        )

    def parts(self) -> dict[str, Array]:
        return {"members": self.members, "mean": self.mean, "truth": self.truth}


def bands(last: int) -> tuple[Band, ...]:
    """Those of `BANDS` up to wavenumber `last`, the last one cut there."""
    return tuple((first, min(end, last)) for first, end in BANDS if first <= last)


def in_band(spectrum: Array, band: Band) -> Array:
    """Energy of a spectrum (..., l) within a band, m2 s-2."""
    return np.asarray(spectrum[..., band[0] : band[1] + 1].sum(-1))
