"""Curves of scores by lead time, of the records that `mosaic scores` shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mosaic_core.verification.figures import Curves
from mosaic_core.verification.rows import short_name

MOST: Final = 6
"""Panels in a picture."""


def curves_of(
    records: Sequence[Mapping[str, Any]], units_of: Callable[[str], tuple[float, str]]
) -> tuple[list[Curves], list[int]]:
    """RMSE, spread and references of the first variables and regions, and their lead times (h).

    Args:
        records: with `variable`, `level`, `region`, `lead_hours` and scores by name.
        units_of: (factor, units) that a variable is shown in.
    """
    scored = [record for record in records if "rmse" in record]
    hours = sorted({record["lead_hours"] for record in scored})
    regions = {record["region"] for record in scored}
    by_line: dict[tuple[str, int, str], dict[int, Mapping[str, Any]]] = {}
    for record in scored:
        key = record["variable"], record["level"], record["region"]
        by_line.setdefault(key, {})[record["lead_hours"]] = record
    panels = []
    for (variable, level, region), line in list(by_line.items())[:MOST]:
        factor, units = units_of(variable)
        title = short_name(variable, level) + (f" {region}" if len(regions) > 1 else "")
        names = ("rmse", "spread", "rmse_persistence", "rmse_climatology")
        rmse, *others = (_series(line, hours, name, factor) for name in names)
        if rmse is not None:
            panels.append(Curves(title, units, rmse, *others))
    return panels, hours


def _series(
    line: Mapping[int, Mapping[str, Any]], hours: Sequence[int], name: str, factor: float
) -> NDArray[np.float64] | None:
    values = np.array([line.get(lead, {}).get(name, np.nan) for lead in hours], float)
    return None if np.isnan(values).all() else factor * values
