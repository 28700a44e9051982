"""Every check there is, and which of them a profile leaves out."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from mosaic_core.analysis.checks.alignment import alignments
from mosaic_core.analysis.checks.bounds import (
    EARTH,
    Climatology,
    GlobalMeans,
    Plausible,
    Tendency,
)
from mosaic_core.analysis.checks.form import (
    ChannelsPresent,
    Finite,
    NotStale,
    OnGrid,
    ValidTimes,
)
from mosaic_core.analysis.checks.hydrostatic import Hydrostatic
from mosaic_core.analysis.checks.result import Check
from mosaic_core.errors import ConfigurationError


@dataclass(frozen=True)
class CheckSettings:
    """leave_out: names of checks that a profile does without; recorded with every analysis.

    tolerance_degrees: displacement in longitude that alignment checks let pass.
    climatology: of the planet that the analyses are of.
    """

    leave_out: tuple[str, ...] = ()
    tolerance_degrees: float = 1.0
    climatology: Climatology = EARTH

    def __post_init__(self) -> None:
        known = [check.name for check in _all(self)]
        for name in self.leave_out:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                raise ConfigurationError(
                    f"no check {name!r}",
                    f"one of {', '.join(known)}",
                    f"did you mean {near[0]!r}?" if near else "",
                )


def default_checks(settings: CheckSettings | None = None) -> tuple[Check, ...]:
    """The checks to run, in the order in which they are reported."""
    settings = settings or CheckSettings()
    return tuple(check for check in _all(settings) if check.name not in settings.leave_out)


def _all(settings: CheckSettings) -> tuple[Check, ...]:
    return (
        ChannelsPresent(),
        ValidTimes(),
        OnGrid(),
        Finite(),
        NotStale(),
        Plausible(settings.climatology),
        GlobalMeans(settings.climatology),
        Tendency(settings.climatology),
        *alignments(settings.tolerance_degrees, settings.climatology),
        Hydrostatic(),
    )
