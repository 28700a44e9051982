"""What the commands of this package (`python -m flows.deploy` and so on) have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable

from mosaic_core.errors import MosaicError


def main(work: Callable[[], None]) -> None:
    """Do it; an error of this project becomes its message and exit code, as `mosaic` has it."""
    try:
        work()
    except MosaicError as error:
        print(f"{type(error).__name__}: {error.found}", file=sys.stderr)  # noqa: T201
        for label, text in (("expected", error.expected), ("what to do", error.action)):
            if text:
                print(f"  {label + ':':11} {text}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
