"""Tables of scores, as `mosaic demo` and `mosaic scores` print them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from mosaic_core.pipeline.scoreboard import Scored

_COLUMNS = {
    "rmse": "RMSE",
    "to_persistence": "/ persist.",
    "to_climatology": "/ clim.",
    "spread_skill": "spr./skill",
    "fair_crps": "fair CRPS",
    "crpss": "CRPSS",
    "acc": "ACC",
    "bias": "bias",
}
_UNITS = {"geopotential": (1 / 9.80665, "m"), "mean_sea_level_pressure": (0.01, "hPa"),
          "specific_humidity": (1000.0, "g/kg")}  # fmt: skip
_IN_UNITS = ("rmse", "fair_crps", "bias")
_NARROW = ("rmse", "to_persistence", "to_climatology", "spread_skill", "fair_crps")


def score_table(lines: Sequence[Scored], *, region: bool = False, every: bool = True) -> Table:
    """Scores by variable and lead time; without CRPSS, ACC and bias where not `every`."""
    from rich.table import Table

    shown = [
        name
        for name in (_COLUMNS if every else _NARROW)
        if any(name in line.scores for line in lines)
    ]
    heads = ["", *(["region"] if region else []), "lead", *(_COLUMNS[name] for name in shown)]
    table = Table(*heads)
    for column in table.columns[1 + region :]:
        column.justify = "right"
    before: tuple[Any, ...] = ()
    for line in lines:
        where = line.line
        factor, units = units_of(where.variable)
        cells = [
            _number(line.scores.get(name), factor if name in _IN_UNITS else 1.0) for name in shown
        ]
        here = (where.short, where.region)
        if before and here != before:
            table.add_section()
        first = f"{where.short} ({units})" if here != before else ""
        table.add_row(first, *([where.region] if region else []), f"{where.lead_hours} h", *cells)
        before = here
    return table


def energy_table(lines: Sequence[Scored], title: str | None = None) -> Table | None:
    """Members' and the mean's kinetic energy over truth's, in the last band, by level."""
    from rich.table import Table

    bands = [name for line in lines for name in line.scores if name.startswith("members_l")]
    if not bands:
        return None
    last = max((name.removeprefix("members_") for name in bands), key=_end_of)
    levels = list(dict.fromkeys(line.line.level for line in lines))
    hours = sorted({line.line.lead_hours for line in lines})
    found = {(line.line.lead_hours, line.line.level): line.scores for line in lines}
    table = Table("lead", *(f"{level} hPa" for level in levels), title=title)
    for column in table.columns:
        column.justify = "right"
    for lead in hours:
        cells = []
        for level in levels:
            scores = found.get((lead, level), {})
            members, mean = (scores.get(f"{part}_{last}") for part in ("members", "mean"))
            cells.append(f"{_number(members)}  ({_number(mean)})")
        table.add_row(f"{lead} h", *cells)
    table.caption = (
        f"kinetic energy at wavenumbers {last.removeprefix('l')} over truth's: members (their mean)"
    )
    return table


def units_of(variable: str) -> tuple[float, str]:
    """(factor, units) that a variable is shown in."""
    from mosaic_core.channels import VARIABLES

    own = VARIABLES[variable].units.replace("m s-1", "m/s").replace("Pa s-1", "Pa/s")
    return _UNITS.get(variable, (1.0, own))


def _end_of(band: str) -> int:
    return int(band.rpartition("-")[2])


def _number(value: float | None, factor: float = 1.0) -> str:
    if value is None or value != value:
        return "-"
    value *= factor
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
