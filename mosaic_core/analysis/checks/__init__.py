"""Checks on an analysis: all run, all reported, then one error that names every failure."""

from mosaic_core.analysis.checks.catalogue import CheckSettings, default_checks
from mosaic_core.analysis.checks.result import Check, CheckResult, Subject, require, run_checks

__all__ = [
    "Check",
    "CheckResult",
    "CheckSettings",
    "Subject",
    "default_checks",
    "require",
    "run_checks",
]
