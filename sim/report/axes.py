"""A drawing of the page on axes of one's own, or of a new figure: colours that can be seen there, and the legend where it is in no way."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.report.paint import LOOK, paint
from sim.report.plots import Part

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (6.4, 3.2)  # inches
NAME = 1.7  # inches of a name in a legend
UNDER = 4.2  # of the size of letters, from the axes to a legend under them


def on_axes(axes: Axes | None, draw: Part, size: tuple[float, float] = SIZE) -> Axes:
    """Draw on the axes, or on those of a new figure."""
    from matplotlib import pyplot, rc_context

    figure = pyplot.figure(figsize=size, layout="constrained") if axes is None else None
    with rc_context(LOOK):
        on = axes if figure is None else figure.subplots()
        before = on.get_legend()
        draw(on)
        if on.get_legend() is not before:
            _below(on)
    _together(on)
    paint(on)
    return on


def columns(axes: Any) -> int:
    """How many columns a legend has that is no wider than the axes."""
    return max(int(axes.get_position().width * axes.figure.get_figwidth() // NAME), 1)


def _below(axes: Any) -> None:
    """Put the legend under the label of the x-axis: on a page it stands between the axes and their title, where a notebook has its own."""
    legend = axes.get_legend()
    legend.set_loc("upper left")
    legend.set_bbox_to_anchor((0.0, 0.0), axes.transAxes)
    legend.borderaxespad = UNDER
    axes.set_title(axes.get_title())


def _together(axes: Any) -> None:
    """Axes that share their y-axis show all that was drawn on any of them."""
    if len(axes.get_shared_y_axes().get_siblings(axes)) > 1:
        low, high = axes.get_ylim()
        axes.autoscale(axis="y")
        axes.set_ylim(low, max(high, axes.get_ylim()[1]), auto=None)
