"""The parts of a page of scores: pictures or tables; what has nothing to show is absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import numpy as np

from mosaic_core.cycle import Cycle
from mosaic_core.pipeline.accumulated import Accumulated
from mosaic_core.verification import diagrams, figures
from mosaic_core.verification.curves import curves_of
from mosaic_core.verification.events import split_field
from mosaic_core.verification.page import Section, Table
from mosaic_core.verification.rows import Line, scores_of, short_name
from mosaic_core.verification.significance import paired
from mosaic_core.verification.units import units_of

METRICS: Final = (
    "rmse", "bias", "mae", "spread", "fair_crps", "truth_deviation", "rmse_persistence",
    "rmse_climatology", "anomaly_product", "anomaly_square",
)  # fmt: skip
"""What a page reads of the catalog."""

HEADLINES: Final = ("z500", "t850", "msl", "2t", "10u", "u850")
REGION: Final = "global"
RECENT_DAYS: Final = 7
_FEWEST_USUAL = 12

Means = dict[tuple[str, int], dict[int, dict[str, dict[Cycle, tuple[float, float]]]]]
"""(sum, weight) by variable and level, lead hours, metric and cycle."""


def order(variable: str, level: int) -> tuple[int, str, int]:
    """The headline channels first."""
    short = short_name(variable, level)
    return HEADLINES.index(short) if short in HEADLINES else len(HEADLINES), variable, level


def _scores(metrics: Mapping[str, Mapping[Cycle, tuple[float, float]]]) -> dict[str, float]:
    averages = {}
    for metric, values in metrics.items():
        sums, weights = np.array(list(values.values())).sum(0)
        averages[metric] = float(sums / weights)
    return scores_of(averages)


def _records(means: Means) -> list[dict[str, object]]:
    return [
        {**Line(*line, REGION, hours)._asdict(), "cycles": len(metrics["rmse"]),
         **_scores(metrics)}
        for line, leads in means.items() for hours, metrics in sorted(leads.items())
    ]  # fmt: skip


def _some(hours: Sequence[int], count: int) -> list[int]:
    """First, last and evenly chosen ones between."""
    return [hours[i] for i in np.unique(np.linspace(0, len(hours) - 1, count, dtype=int))]


def table(means: Means) -> list[Section]:
    hours = sorted({lead for leads in means.values() for lead in leads})
    shown = [lead for lead in (24, 72, 120, 240) if lead in hours] or _some(hours, 3)
    ratios = ("nrmse", "to_persistence", "to_climatology", "spread_skill")
    rows = []
    for (variable, level), leads in list(means.items())[: len(HEADLINES)]:
        factor, units = units_of(variable)
        for lead in (lead for lead in shown if lead in leads):
            scores = _scores(leads[lead])
            scaled = (factor * scores[name] for name in ("rmse", "bias", "fair_crps"))
            cells = [f"{value:.3g}" for value in scaled]
            cells += [f"{scores[name]:.2f}" if name in scores else "-" for name in ratios]
            name = f"{short_name(variable, level)} ({units})"
            rows.append((name, f"{lead} h", str(len(leads[lead]["rmse"])), *cells))
    heads = ("", "lead", "forecasts", "RMSE", "bias", "fair CRPS", "NRMSE", "/ persistence",
             "/ climatology", "spread/skill")  # fmt: skip
    text = "Of the ensemble mean; ratios of RMSE below 1 are better than the reference."
    return [Section("Scores", text, table=Table(heads, tuple(rows)))]


def curves(means: Means) -> list[Section]:
    panels, hours = curves_of(_records(means), units_of)
    if len(hours) < 2:
        return []
    picture = figures.report(panels[:3], hours, {}, 0, "")
    parts = [picture] + ([figures.report(panels[3:], hours, {}, 0, "")] if panels[3:] else [])
    texts = ("RMSE of the mean and spread by lead time. Where they agree, the ensemble knows how "
             "wrong it is.", "")  # fmt: skip
    heads = ("By lead time", "Further variables")
    return [Section(*each) for each in zip(heads, texts, parts, strict=False)]


def heat_map(means: Means, reference: str | None, other: Means | None) -> list[Section]:
    name, pairs = reference or "", {}
    candidates = ("rmse",) if other is not None else ("rmse_climatology", "rmse_persistence")
    for metric in candidates:
        pairs = {
            (line, lead): (metrics["rmse"], (other or means).get(line, {}).get(lead, {})[metric])
            for line, leads in means.items() for lead, metrics in leads.items()
            if metric in (other or means).get(line, {}).get(lead, {})
        }  # fmt: skip
        if pairs:
            name = reference or metric.removeprefix("rmse_")
            break
    else:
        return []
    lines = list(dict.fromkeys(line for line, _ in pairs))
    hours = _some(sorted({lead for _, lead in pairs}), 14)
    skill = np.full((len(lines), len(hours)), np.nan)
    found = np.zeros(skill.shape, bool)
    for (line, lead), (own, theirs) in pairs.items():
        common = sorted(own.keys() & theirs.keys())
        if lead not in hours or not common:
            continue
        at = lines.index(line), hours.index(lead)
        mine, others = (np.array([v[c][0] / v[c][1] for c in common]) for v in (own, theirs))
        skill[at] = 1 - np.sqrt(mine.mean() / others.mean())
        times = [int(c.init_time.timestamp()) // 3600 for c in common]
        found[at] = paired(dict(zip(times, (others - mine).tolist(), strict=True))).significant()
    picture = figures.scorecard(
        skill, [short_name(*line) for line in lines], hours,
        f"Better than {name}, per cent of RMSE", "a dot: significant at 95 %", significant=found,
    )  # fmt: skip
    text = (
        f"1 - RMSE / RMSE of {name}, over the same forecasts. Purple is better, orange worse. A "
        "dot: mean of paired differences of squared error unlike 0 at 95 %, autocorrelation "
        "allowed for (Geer 2016), from ten forecasts on."
    )
    return [Section(f"Against {name}", text, picture)]


def ranks(kept: Accumulated) -> list[Section]:
    hours = sorted({lead for lead, _, region in kept.ranks if region == REGION})
    shown = _some(hours, 3) if hours else []
    channels = {channel for _, channel, region in kept.ranks if region == REGION}
    named = sorted((order(*split_field(c)), c) for c in channels)[:4]
    histograms = {
        (f"{lead} h", short_name(*split_field(channel))): kept.ranks[lead, channel, REGION]
        for lead in shown for _, channel in named if (lead, channel, REGION) in kept.ranks
    }  # fmt: skip
    if not histograms:
        return []
    text = ("Share of area where truth has each rank among the members, over its share in a flat "
            "histogram: high ends are too little spread, a slope is a bias.")  # fmt: skip
    return [Section("Rank histograms", text, diagrams.ranks(histograms))]


def events(kept: Accumulated) -> list[Section]:
    hours = sorted({lead for lead, _, region in kept.counts if region == REGION})
    if not hours:
        return []
    lead = hours[len(hours) // 2]
    events = {
        event.replace("_", " "): counts
        for (at, event, region), counts in kept.counts.items()
        if at == lead and region == REGION and 0 < float(counts.base_rate) < 1
    }
    if not events:
        return []
    text = (f"At {lead} h. Points on the diagonal are reliable, their size is how often the "
            "probability was forecast; the dotted line is how often the event happened. Below, "
            "the relative operating characteristic.")  # fmt: skip
    chosen = dict(list(events.items())[:5])
    return [Section("Probabilities", text, diagrams.reliability(chosen))]


def spectra(kept: Accumulated, last: int) -> list[Section]:
    if not kept.energies:
        return []
    shown = _some(sorted({lead for lead, _ in kept.energies}), 2)
    chosen = {
        (f"{lead} h", f"{level} hPa"): energy
        for (lead, level), energy in kept.energies.items() if lead in shown
    }  # fmt: skip
    text = "Members should keep the energy of truth at every scale; their mean must have less."
    return [Section("Spectra", text, figures.report((), (), chosen, last, ""))]


def drift(history: Means) -> list[Section]:
    hours = sorted({lead for leads in history.values() for lead in leads})
    lead = min(hours, key=lambda each: abs(each - 72))
    lines = [line for line in history if "rmse" in history[line].get(lead, {})][: len(HEADLINES)]
    values = {
        line: {c.init_time + timedelta(hours=lead): (s / w) ** 0.5
               for c, (s, w) in sorted(history[line][lead]["rmse"].items())}
        for line in lines
    }  # fmt: skip
    first = min(time for each in values.values() for time in each)
    series = []
    for (variable, level), each in values.items():
        factor, units = units_of(variable)
        days = np.array([(time - first).total_seconds() / 86400 for time in each])
        errors = factor * np.array(list(each.values()))
        before = errors[days < days.max() - RECENT_DAYS]
        low, middle, high = (
            np.percentile(before, (10, 50, 90)).tolist()
            if len(before) >= _FEWEST_USUAL
            else (np.nan,) * 3
        )
        usual = None if np.isnan(middle) else (low, middle, high)
        series.append(
            diagrams.Series(f"{short_name(variable, level)}, {lead} h", units, days, errors, usual)
        )
    text = (f"RMSE of every forecast at {lead} h by the day it came true. The band holds four in "
            f"five values before the last {RECENT_DAYS} days, where there are enough.")  # fmt: skip
    picture = diagrams.drift(series, f"{first:%Y-%m-%d}", RECENT_DAYS)
    return [Section("Drift", text, picture)]
