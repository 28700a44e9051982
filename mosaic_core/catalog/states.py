"""The state machines of the catalog, written down once. A state without arrows is final.

A run that was killed is taken up again: from every unfinished state back to `waiting`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from mosaic_core.errors import TransitionRefused

Machine = Mapping[str, frozenset[str]]


def _machine(**arrows: str) -> Machine:
    return {state: frozenset(targets.split()) for state, targets in arrows.items()}


RUN: Final = _machine(
    waiting="forecasting failed skipped",
    forecasting="products waiting failed",
    products="publishing waiting failed",
    publishing="published unchanged waiting failed",
    failed="waiting skipped",
    published="",
    unchanged="waiting",  # a re-run that came out equal: its revision is still free
    skipped="waiting",  # superseded by a newer cycle; still free for a backfill
)
ANALYSIS: Final = _machine(
    received="accepted degraded rejected",
    accepted="received",
    degraded="received",  # accepted by a written policy
    rejected="received",
)
PRODUCT: Final = _machine(
    building="ready failed",
    ready="published building failed",
    failed="building",
    published="",
)
MACHINES: Final[Mapping[str, Machine]] = {"run": RUN, "analysis": ANALYSIS, "product": PRODUCT}


def sources(kind: str, target: str) -> frozenset[str]:
    """States from which `target` may be entered."""
    return frozenset(state for state, targets in MACHINES[kind].items() if target in targets)


def is_final(kind: str, state: str) -> bool:
    return not MACHINES[kind][state]


def require(kind: str, current: str, target: str, what: str) -> None:
    """Raise TransitionRefused unless the machine of `kind` knows `current` -> `target`."""
    machine = MACHINES[kind]
    if target not in machine:
        raise TransitionRefused(f"{what}: no state {target!r}", f"one of {', '.join(machine)}")
    if target not in machine.get(current, frozenset()):
        allowed = ", ".join(sorted(machine.get(current, ()))) or "none: it is final"
        raise TransitionRefused(f"{what}: {current} -> {target}", f"from {current}: {allowed}")
