"""docs/figures/scaling.png: time and memory against tokens.

python -m benchmarks.scaling_figure        (after benchmarks.scaling)
"""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.record import RESULTS

PICTURE = Path(__file__).parent.parent / "docs" / "figures" / "scaling.png"
COLOURS = {
    "attention, ours": "#1f6f8b", "attention, flex": "#d98e04", "attention, dense": "#b23a48",
    "step, ours": "#4a4e69",
}  # fmt: skip


def panel(axes: Axes, result: dict[str, dict], quantity: str, title: str) -> None:  # type: ignore[type-arg]
    for name, points in result["series"].items():
        found = [(p["tokens"], p[quantity]) for p in points.values() if p.get(quantity, 0) > 0]
        if not found:
            continue
        power = result["exponents"][name][quantity]
        label = name if power is None else f"{name}: tokens^{power:.2f}"
        style = "--" if name.startswith("step") else "-"
        axes.plot(*zip(*found, strict=True), style, marker="o", color=COLOURS[name], label=label)
    axes.set(xscale="log", yscale="log", xlabel="tokens", title=title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def main() -> None:
    result = json.loads((RESULTS / "scaling.json").read_text())["result"]
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    panel(left, result, "seconds", "seconds of one thread")
    panel(right, result, "peak_gb", "memory added at the peak (GB)")
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
