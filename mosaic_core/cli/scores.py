"""Tables of scores, as `mosaic demo` and `mosaic scores` print them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from mosaic_core.pipeline.scoreboard import Scored

Record = dict[str, Any]
_KEYS = ("variable", "level", "field", "event", "region", "lead_hours", "cycles")

_COLUMNS = {
    "rmse": "RMSE",
    "nrmse": "NRMSE",
    "to_persistence": "/ persist.",
    "to_climatology": "/ clim.",
    "spread_skill": "spr./skill",
    "fair_crps": "fair CRPS",
    "crpss": "CRPSS",
    "acc": "ACC",
    "bias": "bias",
}
_IN_UNITS = ("rmse", "fair_crps", "bias")
_NARROW = ("rmse", "to_persistence", "to_climatology", "spread_skill", "fair_crps")


def score_table(lines: Sequence[Scored], *, region: bool = False, every: bool = True) -> Table:
    """Scores by variable and lead time; without CRPSS, ACC and bias where not `every`."""
    from rich.table import Table

    from mosaic_core.verification.units import units_of

    lines = [line for line in lines if "rmse" in line.scores]
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


def print_scores(records: Sequence[Record], about: Mapping[str, Any], *, region: bool) -> None:
    """Tables of fields, of events and of kinetic energy."""
    from rich.console import Console

    from mosaic_core.pipeline.scoreboard import Scored
    from mosaic_core.verification.rows import ENERGY, Line

    console = Console()
    _print_about(console, records, about)
    lines = [
        Scored(
            Line(*(r[name] for name in Line._fields)), r["cycles"],
            {k: v for k, v in r.items() if k not in _KEYS},
        )
        for r in records
    ]  # fmt: skip
    fields = [line for line in lines if line.line.variable != ENERGY]
    if any("rmse" in line.scores for line in fields):
        console.print(score_table(fields, region=region))
    energies = energy_table([line for line in lines if line.line.variable == ENERGY])
    for table in (event_table(fields, region=region), energies):
        if table is not None:
            console.print(table)


def print_records(records: Sequence[Record], about: Mapping[str, Any]) -> None:
    """One table with a column for every key."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    _print_about(console, records, about)
    names = [name for name in records[0] if name not in ("field", "cycles")]
    table = Table(*(name.replace("_", " ") for name in names))
    for record in records:
        cells = (record[name] for name in names)
        table.add_row(*(_number(c) if isinstance(c, float) else str(c) for c in cells))
    console.print(table)


def plain(records: Sequence[Record]) -> list[Record]:
    """JSON has neither NaN nor infinity: null."""
    return [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in r.items()}
        for r in records
    ]


def csv_text(records: Sequence[Record]) -> str:
    """A line a score: what it is of, its name and its value in the files' units."""
    keys = [name for name in _KEYS if name in records[0]]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*keys, "score", "value"])
    for record in records:
        for name, value in record.items():
            if name not in keys:
                writer.writerow([*(record[key] for key in keys), name, repr(float(value))])
    return out.getvalue()


def draw(records: Sequence[Record], about: Mapping[str, Any], path: Path) -> None:
    """Curves by lead time of up to six variables in one region, as a PNG.

    Raises:
        ConfigurationError: nothing to draw, or a path that cannot be written.
    """
    from mosaic_core.errors import ConfigurationError
    from mosaic_core.verification import figures
    from mosaic_core.verification.curves import curves_of
    from mosaic_core.verification.units import units_of

    panels, hours = curves_of(records, units_of)
    if not panels:
        raise ConfigurationError("no errors of fields to draw", "variables that have an RMSE")
    count = max(record["cycles"] for record in records)
    title = f"{about['model']} against {about['truth']}, {count} cycles up to {about['until']}"
    try:
        path.write_bytes(figures.report(panels, hours, {}, 0, title))
    except OSError as error:
        raise ConfigurationError(f"--plot {path}: {error}", "a file that can be written") from error


def _print_about(console: Any, records: Sequence[Record], about: Mapping[str, Any]) -> None:
    count = max(record["cycles"] for record in records)
    console.print(
        f"{about['model']} against {about['truth']}: {count} cycles, "
        f"{about['since'] or 'the first'} to {about['until']}"
    )


def event_table(lines: Sequence[Scored], *, region: bool = False) -> Table | None:
    """Brier scores, their skill and the base rate by event and lead time; None without events."""
    from rich.table import Table

    found = [
        (line, name.removeprefix("base_rate_"))
        for line in lines
        for name in line.scores
        if name.startswith("base_rate_")
    ]
    if not found:
        return None
    heads = ["event", *(["region"] if region else []), "lead", "happens", "Brier", "fair", "skill"]
    table = Table(*heads)
    for column in table.columns[1 + region :]:
        column.justify = "right"
    for line, event in sorted(found, key=lambda each: (each[0].line[:3], each[1], each[0].line[3])):
        cells = [
            _number(line.scores.get(f"{metric}_{event}"))
            for metric in ("base_rate", "brier", "fair_brier", "brier_skill")
        ]
        where = line.line
        name = f"{where.short} {event.replace('_', ' ')}"
        table.add_row(name, *([where.region] if region else []), f"{where.lead_hours} h", *cells)
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


def _end_of(band: str) -> int:
    return int(band.rpartition("-")[2])


def _number(value: float | None, factor: float = 1.0) -> str:
    if value is None or value != value:
        return "-"
    value *= factor
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
