"""The picture of a training: its loss, what validation found, and where phases begin."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mosaic_core.training.log import Log
from mosaic_core.training.recipe import Recipe


def loss_picture(log: Log, recipe: Recipe) -> bytes:
    """PNG of the loss of each update with its running mean, and of CRPS by step of each validation.

    Both are in standard deviations of a step's change, on a logarithmic axis.
    """
    updates, validations = log.entries("update"), log.entries("validation")
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(9, 4.2), dpi=120, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        place = np.array([entry["update"] for entry in updates], float)
        loss = np.array([entry["loss"] for entry in updates], float)
        if loss.size:
            axes.plot(place, loss, color="#b9c4cf", lw=0.6, label="loss of an update")
            axes.plot(place, running_mean(loss), color="#1f4e79", lw=1.6, label="its running mean")
        steps = len(validations[0]["crps"]) if validations else 0
        for step in range(steps):
            axes.plot(
                [v["update"] for v in validations],
                [v["crps"][step] if step < len(v["crps"]) else np.nan for v in validations],
                color=mpl.colormaps["autumn"](0.7 * step / max(1, steps - 1)),
                marker="o", ms=3, lw=1,
                label=f"validation CRPS, step {step + 1}" if step in (0, steps - 1) else None,
            )  # fmt: skip
        _mark_phases(axes, recipe)
        axes.set(yscale="log", xlabel="update", ylabel="in deviations of a step's change")
        axes.set_xlim(0, max(1.0, place.max() if place.size else 1.0))
        axes.set_title(f"{recipe.name}: loss and validation", loc="left", weight="bold", pad=16)
        axes.grid(alpha=0.25, lw=0.5)
        if axes.lines and axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="upper right")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def running_mean(values: NDArray[np.float64], share: float = 0.02) -> NDArray[np.float64]:
    """Mean of the values up to each place, those before it weighing less and less.

    The weights fall by e over `share` of the length, at least ten places; they are normalised, so
    that the first values are not drawn to zero.
    """
    decay = np.exp(-1.0 / max(10.0, share * len(values)))
    out = np.empty(len(values))
    total = weight = 0.0
    for i, value in enumerate(values):
        total, weight = decay * total + value, decay * weight + 1
        out[i] = total / weight
    return out


def _mark_phases(axes: mpl.axes.Axes, recipe: Recipe) -> None:
    start = 0
    for phase in recipe.phases:
        axes.axvline(start, color="#8a8a8a", lw=0.7, ls=":")
        axes.annotate(
            f"{phase.rollout} step{'s' if phase.rollout > 1 else ''}", (start, 1.01),
            xycoords=("data", "axes fraction"), fontsize=8, color="#5a5a5a",
            annotation_clip=True,
        )  # fmt: skip
        start += phase.updates
