"""The one error tree.

Every message says what was found, what was expected and what to do. The exit code of the
`mosaic` command is the `exit_code` of the error that ended it.

    MosaicError 1
    ├── ConfigurationError 2      a setting, profile or command line that cannot be right
    ├── AnalysisError 3
    │   ├── AnalysisMissing       not there (yet): may be tried again until the cut-off
    │   ├── AnalysisUnreadable    there, but truncated or not in a form that can be decoded
    │   └── AnalysisRejected      read, and refused by name by the checks
    ├── ModelError 4
    │   ├── CheckpointError       tensors missing, unexpected, misshapen; wrong file
    │   ├── DeviceError           no such device, kernel or memory
    │   └── TrainingError         training cannot go on (NaN in loss or data, another recipe)
    ├── ForecastError 5           the rollout or its store cannot go on (NaN in a step, say)
    ├── StoreError 6              the object store refuses, is full or is not there
    │   ├── StoreUnreachable      it does not answer: waited for, then given up
    │   └── IntegrityError        bytes are not what the manifest says
    ├── CatalogError 7
    │   ├── CatalogUnreachable    it does not answer: waited for, then given up
    │   ├── TransitionRefused     a state change that the state machine does not know
    │   └── CycleBusy 8           another run holds the claim on this cycle
    └── PublicationError 9        the manifest is invalid, or what is published would change
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType


class MosaicError(Exception):
    """Base of every error that this project raises on purpose."""

    exit_code = 1

    def __init__(self, found: str, expected: str = "", action: str = "") -> None:
        self.found = found
        self.expected = expected
        self.action = action
        super().__init__(found, expected, action)

    def __str__(self) -> str:
        parts = [self.found]
        if self.expected:
            parts.append(f"expected: {self.expected}")
        if self.action:
            parts.append(f"what to do: {self.action}")
        return "; ".join(parts)


class ConfigurationError(MosaicError):
    exit_code = 2


class AnalysisError(MosaicError):
    """`valid_time` is that of the one analysis it is about, where there is one (UTC)."""

    exit_code = 3
    valid_time: datetime | None = None


class AnalysisMissing(AnalysisError):
    pass


class AnalysisUnreadable(AnalysisError):
    pass


class AnalysisRejected(AnalysisError):
    """`verdicts` has the status of each check by name, `digest` that of the refused values."""

    digest: str = ""
    verdicts: Mapping[str, str] = MappingProxyType({})


class ModelError(MosaicError):
    exit_code = 4


class CheckpointError(ModelError):
    pass


class DeviceError(ModelError):
    pass


class TrainingError(ModelError):
    pass


class ForecastError(MosaicError):
    exit_code = 5


class StoreError(MosaicError):
    exit_code = 6


class StoreUnreachable(StoreError):
    pass


class IntegrityError(StoreError):
    pass


class CatalogError(MosaicError):
    exit_code = 7


class CatalogUnreachable(CatalogError):
    pass


class TransitionRefused(CatalogError):
    pass


class CycleBusy(CatalogError):
    exit_code = 8


class PublicationError(MosaicError):
    exit_code = 9
