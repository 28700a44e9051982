"""A run as one table, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

HEADINGS = (
    "section", "entry", "ms", "members", "TFLOP/s", "of ceiling", "x baseline", "rel. error",
    "GB", "more",
)  # fmt: skip
_MORE = ("gb_per_s", "seconds", "forecast_seconds", "graphs", "graph_breaks")


def table(document: Mapping[str, Any]) -> str:
    """Every entry of every section; sections and entries that failed say so.

    A rate is `effective` where it counts the published formulation and not what was computed.
    """
    rows = [HEADINGS, *_rows(document)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    versions = document["versions"]
    head = (
        f"{document['chip']}, torch {versions['torch']}, triton {versions['triton']}, "
        f"commit {document['commit']}, {document['date']}, scale {document['scale']}"
    )
    return "\n".join([head, *(line.rstrip() for line in lines)])


def _rows(document: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    ceiling = rate_ceiling(document)
    for section, found in document["sections"].items():
        if found["status"] != "done":
            reason = found["reason"].strip().splitlines()
            yield _line(section, found["status"], reason[-1] if reason else "")
        entries = found.get("entries", {})
        for name, entry in entries.items():
            if "failed" in entry:
                yield _line(section, name, "failed: " + entry["failed"].splitlines()[0])
                continue
            rate = entry.get("tflop_per_s")
            kind = " effective" if entry.get("effective") else ""
            yield (
                section, name, _number(entry.get("ms")), _number(entry.get("members")),
                _number(rate) + kind, _number(rate / ceiling if rate and ceiling else None),
                _number(speed_up(entries, entry)), _number(entry.get("rms_rel")),
                _number(entry.get("peak_gb")),
                ", ".join(f"{k} {_number(entry[k])}" for k in _MORE if k in entry),
            )  # fmt: skip


def _line(section: str, name: str, what: str) -> tuple[str, ...]:
    return (section, name, *[""] * (len(HEADINGS) - 3), what[:100])


def _number(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


def speed_up(entries: Mapping[str, Any], entry: Mapping[str, Any]) -> float | None:
    """How many times faster than the baseline that the entry names, a member."""
    baseline = entries.get(entry.get("baseline", ""), {})
    if "ms" not in baseline or "ms" not in entry:
        return None
    return float(baseline["ms"] / baseline["members"] / (entry["ms"] / entry["members"]))


def rate_ceiling(document: Mapping[str, Any]) -> float | None:
    """TFLOP/s of the large float16 product of this run."""
    entries = document["sections"].get("ceilings", {}).get("entries", {})
    for name, entry in entries.items():
        large = name.startswith("float16_") and name.removeprefix("float16_").isdigit()
        if large and "tflop_per_s" in entry:
            return float(entry["tflop_per_s"])
    return None


def decisions(document: Mapping[str, Any]) -> list[str]:
    """The rules that were written down before the first measurement, where they apply.

    Attention is judged by the entries whose lists and local groups share nothing, so that what
    is counted is what is computed.
    """
    lines = []
    entries = document["sections"].get("attention", {}).get("entries", {})
    rates = [e["tflop_per_s"] for n in ("ours", "ours_24") if "ms" in (e := entries.get(n, {}))]
    if rates:
        verdict = "read the SASS before tuning" if max(rates) < 360 else "tune by measurement"
        lines.append(f"attention at {max(rates):.0f} TFLOP/s (limit 360): {verdict}")
    overlaps = document["sections"].get("accuracy", {}).get("entries", {}).get("overlap", {})
    for stage, mean in overlaps.get("blocks_by_stage", {}).items():
        lines.append(
            f"{stage}: {mean:.2f} selected blocks are local too; these weights are random, "
            "only trained ones decide on the deduplication (limit 2)"
        )
    whole = document["sections"].get("step", {}).get("entries", {})
    ceiling = rate_ceiling(document)
    for name, entry in whole.items():
        if name.startswith("ours") and "tflop_per_s" in entry and ceiling:
            share = entry["tflop_per_s"] / ceiling
            lines.append(f"step, {name}: {share:.0%} of the measured ceiling, effective (aim 60 %)")
    return lines
