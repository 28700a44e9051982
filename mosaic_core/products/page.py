"""One map with its title, colour bar, legend and quality flags: the frame that maps share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from mosaic_core.products import canvas
from mosaic_core.products.product import ProductContext

_GREY = "#555b61"


@dataclass(frozen=True)
class Words:
    """What stands around a map.

    Attributes:
        hours: lead time (h) that the map is of; of a period its end.
        begins: lead time (h) at which a period begins; None at one time.
        legend: small, below the map.
    """

    title: str
    hours: float
    units: str
    legend: str = ""
    begins: float | None = None


def one_map(
    plane: canvas.Plane,
    context: ProductContext,
    words: Words,
    ticks: Sequence[float],
    paint: Callable[[Axes], object],
) -> bytes:
    """The map as PNG.

    Args:
        ticks: values that the colour bar names.
        paint: draws on the axes and returns what the colour bar explains.
    """
    globe = plane.projection.west is not None
    extra = 0.28 if context.flags else 0.0
    width, height = (10.0, 6.15 + extra) if globe else (7.6, 8.5 + extra)
    with canvas.style():
        figure = canvas.new_figure(width, height)
        top = 0.72 + extra
        axes = figure.add_axes((0.02, 0.82 / height, 0.96, (height - top - 0.82) / height))
        shading = paint(axes)
        canvas.frame(axes, plane, context.land)
        colour_bar(figure, shading, ticks, words.units, height)
        titles(figure, context, words, 1 - extra / height)
        canvas.banner(figure, context.flags)
        return canvas.png(figure)


def colour_bar(
    figure: Figure, shading: object, ticks: Sequence[float], units: str, height: float
) -> None:
    """What the colours mean, `height` inches being those of the figure."""
    axes = figure.add_axes((0.17, 0.5 / height, 0.66, 0.15 / height))
    bar = figure.colorbar(
        shading,  # type: ignore[arg-type]
        cax=axes,
        orientation="horizontal",
        spacing="uniform",
        ticks=FixedLocator(list(ticks)),
        format=FuncFormatter(lambda value, position: f"{value:g}"),
    )
    bar.minorticks_off()
    bar.ax.tick_params(labelsize=8.5, length=2.5, width=0.6, pad=2)
    bar.outline.set_linewidth(0.6)
    figure.text(0.845, 0.575 / height, units, size=9.5, va="center", ha="left")


def titles(figure: Figure, context: ProductContext, words: Words, top: float) -> None:
    """Title and lead time, times, model; below the legend, attribution and licence."""
    height = figure.get_figheight()
    start = context.cycle.init_time
    line1, line2 = top - 0.27 / height, top - 0.52 / height
    lead, valid = f"+{words.hours:g} h", canvas.valid_time(start, words.hours)
    if words.begins is not None:
        lead = f"+{words.begins:g} to {words.hours:g} h"
        valid = f"{canvas.valid_time(start, words.begins)} to {valid}"
    figure.text(0.02, line1, words.title, size=13.5, weight="bold", va="center")
    figure.text(0.98, line1, lead, size=13.5, weight="bold", va="center", ha="right")
    times = f"valid {valid}   from {canvas.timestamp(start)}"
    members = f"{context.members} member{'s' if context.members > 1 else ''}"
    figure.text(0.02, line2, times, size=9.5, va="center")
    figure.text(0.98, line2, f"{context.model}, {members}", size=9.5, va="center", ha="right")
    foot = "   ".join(text for text in (context.attribution, context.licence) if text)
    figure.text(0.02, 0.13 / height, words.legend, size=7.5, va="center", color=_GREY)
    figure.text(0.98, 0.13 / height, foot, size=7.5, va="center", ha="right", color=_GREY)
